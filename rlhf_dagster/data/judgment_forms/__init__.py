"""The forms in which people have judgments, one file a form."""
