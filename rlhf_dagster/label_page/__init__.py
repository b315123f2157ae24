"""A page and a terminal in which one person judges a loop's comparisons, over the embedded label store."""
