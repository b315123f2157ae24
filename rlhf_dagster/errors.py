"""`UserError`, whose message is for the person at the keyboard, and how it quotes the errors of libraries."""

import unicodedata

_UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of what ends a line, steers a terminal, or cannot be written out."""
_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the order in which the others are shown."""


class UserError(Exception):
    """Something the user gave cannot be used.

    The message is one sentence: what is wrong, where, and what to do. The command line prints it and exits with
    code 2; in Dagster the asset fails with it. What it quotes may come from anybody: characters that would make two
    lines of it, or steer a terminal, are shown as Python writes them in strings.
    """

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


class Damaged(UserError):  # noqa: N818  # damaged is what it is
    """A file is not what was written: a disk, a transfer or a hand has changed it. The message names the file."""


def in_one_line(text: str) -> str:
    """``text`` with escapes in place of line breaks, control characters and lone surrogates."""
    return "".join(one.encode("unicode_escape").decode() if _is_unseen(one) else one for one in text)


def _is_unseen(one: str) -> bool:
    return one in _TURNING or unicodedata.category(one) in _UNSEEN


def first_line(error: BaseException) -> str:
    """The first line of a library's error, without its full stop; the name of its class where it has no message."""
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".") if lines else "") or type(error).__name__
