"""Model folders and repositories, opened and written strictly: every weight is the file's own."""
