"""Figures about what responses say: copying, overlap with references, facts."""
