"""Policies of a loop by name, what they answer, and what reward models say of it."""
