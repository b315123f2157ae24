"""Faults made on purpose: calls of the file system that fail, kill, or are lost with the power."""
