"""Policies of a loop by name, and what they answer."""
