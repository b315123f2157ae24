"""Data that comes in: imported files, data sets, and the tables that are built from them."""
