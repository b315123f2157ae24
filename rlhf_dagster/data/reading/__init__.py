"""Rows of whatever people bring: files of any usual format, folders, data sets of the Hub."""
