"""Forward and backward passes that need less memory: logits in pieces, layers computed again, narrow weights."""
