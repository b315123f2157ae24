"""Comparisons and labels: what is asked, who answered what, and how far it can be trusted."""
