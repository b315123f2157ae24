"""Lines of a text."""

from typing import AnyStr


def lines_of(text: AnyStr) -> list[AnyStr]:
    """The lines of a text, each of which ends at a line feed and nowhere else.

    `str.splitlines` also breaks at U+2028, U+2029, U+0085 and five control characters, which people paste into reasons
    and which JSON writes as they are.
    """
    end = b"\n" if isinstance(text, bytes) else "\n"
    return text.removesuffix(end).split(end) if text else []
