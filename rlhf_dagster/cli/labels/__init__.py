"""Commands for those who label: people, and the simulated annotators of a task."""
