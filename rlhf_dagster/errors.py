"""`UserError`, whose message is for the person at the keyboard, and how it quotes the errors of libraries."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what is wrong, where, and what to do. The command line prints it and exits with
    code 2; in Dagster the asset fails with it.
    """


class Damaged(UserError):  # noqa: N818  # damaged is what it is
    """A file is not what was written: a disk, a transfer or a hand has changed it. The message names the file."""


def first_line(error: BaseException) -> str:
    """The first line of a library's error, without its full stop; the name of its class where it has no message."""
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".") if lines else "") or type(error).__name__
