"""`rlhf init`: what a new loop is asked, its settings with their reasons, and a look whether it can begin."""
