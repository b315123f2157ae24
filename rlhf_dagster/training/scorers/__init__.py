"""Reward and value models of any causal architecture: its trunk with a linear head."""
