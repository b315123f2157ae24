"""Proximal policy optimisation with a KL penalty and pretraining mix."""
