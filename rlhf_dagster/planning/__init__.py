"""A plan on paper: what a loop of a size needs, from figures that are known, with the arithmetic shown."""
