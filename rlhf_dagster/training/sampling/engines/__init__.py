"""Engines in processes of their own that draw responses from the weights they are sent."""
