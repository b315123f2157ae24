"""`rlhf replicate`: the papers' claims as experiments, and a page that says which of them hold here."""
