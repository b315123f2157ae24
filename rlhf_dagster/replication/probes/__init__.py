"""Measurements of finished variants that need their models: taken once, kept beside the loop."""
