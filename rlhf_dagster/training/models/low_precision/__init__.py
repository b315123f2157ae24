"""Weights in fewer bits than float32 has, and products with them."""
