"""What is looked at before a loop goes on: whether its models belong together, and which rounds are deleted."""
