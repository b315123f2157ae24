"""Which language models can be trained here: tiny models of every architecture go through every stage."""
