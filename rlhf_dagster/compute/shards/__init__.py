"""Sampling and scoring of many prompts in parts, each of which gives the same wherever it is done."""
