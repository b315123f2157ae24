"""Tiny random models of every architecture that transformers has a causal language model of, made on the spot."""
