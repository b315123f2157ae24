"""What a model can do here: found out by running it, before anything is trained on it."""
