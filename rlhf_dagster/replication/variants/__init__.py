"""A variant as a loop of its own: its settings, its folder, the steps that lead to its end, what it takes over."""
