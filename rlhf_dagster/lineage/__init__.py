"""What was made from what: the registry of policies, manifests, and kept models."""
