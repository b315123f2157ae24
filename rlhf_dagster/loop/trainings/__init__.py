"""The steps of a loop that make a model: each builds the spec, trains, and keeps the result with its manifest."""
