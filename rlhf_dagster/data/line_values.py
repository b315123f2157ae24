"""Texts in a line of JSON."""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.data.lines import BadLineError


def text_of(values: Mapping[str, Any], key: str) -> str:
    """The text under ``key``; raises BadLineError if it is not a text, is empty, or is not valid Unicode."""
    text = json_text(values[key], f"`{key}`")
    if not text.strip():
        raise BadLineError(f"`{key}` is empty")
    return text


def optional_text(values: Mapping[str, Any], key: str) -> str:
    """The text under ``key``; empty if there is none."""
    value = values.get(key)
    return "" if value is None else json_text(value, f"`{key}`")


def json_text(value: Any, what: str) -> str:
    """A text that every table can hold; raises BadLineError, which begins with ``what``, for anything else."""
    if not isinstance(value, str):
        raise BadLineError(f"{what} is not a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise BadLineError(f"{what} holds a character that Unicode does not have") from None
    return value
