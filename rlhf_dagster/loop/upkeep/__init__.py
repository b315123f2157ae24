"""Looking whether a loop is whole, mending it, backing it up and bringing it back."""
