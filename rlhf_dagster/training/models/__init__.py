"""Policies as PyTorch modules: loading, adapters, tokens, log-probabilities."""
