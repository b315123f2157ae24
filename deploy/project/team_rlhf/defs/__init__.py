"""A folder for each loop, with a `defs.yaml`."""
