"""Estimates with intervals that claims are judged by: differences, trends, and the fit of over-optimisation."""
