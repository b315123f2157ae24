"""Prompts, demonstrations and pretraining text, from a task, imported files or a data set."""
