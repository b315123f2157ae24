"""Drawing responses from a policy, by this package or by another program."""
