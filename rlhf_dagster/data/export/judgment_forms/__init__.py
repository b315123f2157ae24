"""The forms in which judgments go out, one file for those of a kind."""
