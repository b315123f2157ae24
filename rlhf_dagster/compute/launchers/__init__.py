"""The ways in which a training is started: in this process, in a child, on Ray."""
