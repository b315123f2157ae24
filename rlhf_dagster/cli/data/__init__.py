"""Commands that bring records into a loop and out of it."""
