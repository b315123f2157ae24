"""Strict checks of the values in a result: a check returns the value, or an error says why it is wrong."""

import re
from dataclasses import dataclass, field
from typing import Any

AXIS_PATTERN = r"[a-z][a-z_]*"


class UnreadableError(ValueError):
    """Says in one sentence why a result cannot be read."""


@dataclass(frozen=True)
class Answer:
    """What a result says, in display order."""

    ranks: list[int] | None = None
    """None where nothing was decided, and for a demonstration."""
    axes: dict[str, list[int]] = field(default_factory=dict)
    """By axis, the rating of each response or, in an A/B evaluation, its rank."""
    text: str = ""
    """The response written for a demonstration."""


def named(value: Any) -> str:
    """What a wrong value is, in a word."""
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object", float: "a fraction"}
    return "nothing" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def is_whole(value: Any) -> bool:
    """Whether ``value`` is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def checked_text(value: Any, key: str) -> str:
    """A text that every table can hold. Raises :class:`UnreadableError`."""
    if not isinstance(value, str):
        raise UnreadableError(f"`{key}` is {named(value)}, not a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnreadableError(f"`{key}` holds a character that Unicode does not have.") from None
    return value


def written_text(value: Any, key: str) -> str:
    """A text that is not blank. Raises :class:`UnreadableError`."""
    if not checked_text(value, key).strip():
        raise UnreadableError(f"`{key}` is empty.")
    return str(value)


def checked_axis(name: Any) -> str:
    """The name of an axis, as the settings allow it. Raises :class:`UnreadableError`."""
    if not isinstance(name, str) or not re.fullmatch(AXIS_PATTERN, name):
        raise UnreadableError("An axis has a name that no axis can have.")
    return name


def checked_positions(positions: list[Any], key: str, k: int) -> list[int]:
    """Different display positions of ``k`` responses, at least one. Raises :class:`UnreadableError`."""
    if not positions:
        raise UnreadableError(f"`{key}` names no response.")
    for position in positions:
        if not is_whole(position):
            raise UnreadableError(f"`{key}` is {named(position)}, not a position.")
        if not 0 <= position < k:
            raise UnreadableError(f"`{key}` is position {str(position)[:20]} of {k} responses.")
    if len(set(positions)) < len(positions):
        raise UnreadableError(f"`{key}` names a response twice.")
    return positions
