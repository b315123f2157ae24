"""Running variants: in worker processes, in an order that their beginnings ask for, with what it costs."""
