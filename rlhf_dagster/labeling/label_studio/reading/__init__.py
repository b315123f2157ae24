"""Reading a server: its pages, who it is, and what is missing from it."""
