"""Single exchanges with a server: how long and how large they may be, and what an answer has to look like."""
