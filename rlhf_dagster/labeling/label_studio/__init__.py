"""Label Studio as a label store."""
