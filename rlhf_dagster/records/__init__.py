"""The tables of a loop: schemas, ids, and what a row means."""
