"""A loop's records on their way out: which tables they are read from, and what of these is left out."""
