"""Chats in the template of a tokenizer, and what ends a response to them."""
