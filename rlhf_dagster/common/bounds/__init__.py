"""Bounds of what comes from outside: how much of it is read, and for how long."""
