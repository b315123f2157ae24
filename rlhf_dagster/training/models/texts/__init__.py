"""Texts as token ids, in the ways that a tokenizer by itself does not read them."""
