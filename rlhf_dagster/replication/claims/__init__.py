"""The claims, a file for each: which loops it runs, what is measured of them, and when it counts as reproduced."""
