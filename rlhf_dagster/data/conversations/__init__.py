"""Logs of conversations with a served policy, which become prompts and unpaired feedback."""
