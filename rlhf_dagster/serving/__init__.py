"""Serving the champion: a front that stays, and servers of single policies behind it that are exchanged."""
