"""The one error that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what is wrong, where, and what to do. The command line prints it and exits with
    code 2; in Dagster the asset fails with it.
    """
