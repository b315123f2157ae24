"""Reward models from comparisons, rankings and ratings."""
