"""Giving a loop's policies away: what goes along, under which licence, to a folder or to the Hugging Face Hub."""
