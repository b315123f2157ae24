"""Every reader of what comes from outside, on texts that nobody meant: a sentence or a right result, nothing else."""
