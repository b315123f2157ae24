"""A row of what is imported that cannot be used."""


class BadLineError(ValueError):
    """A row that cannot be used; the message is the reason given to the user."""
