"""Values in a row of what is imported: texts, names, numbers and times."""

import math
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from rlhf_dagster.common.bounds.limits import TEXT_CHARACTERS
from rlhf_dagster.data.lines import BadLineError

_MILLISECONDS = 10**11
"""A time since 1970 is in milliseconds from here on: in seconds, it would be after the year 5000."""


def text_of(values: Mapping[str, Any], key: str) -> str:
    """The text under ``key``; raises BadLineError if it is not a text, is empty, or is not valid Unicode."""
    text = json_text(values[key], f"`{key}`")
    if not text.strip():
        raise BadLineError(f"`{key}` is empty")
    return text


def optional_text(values: Mapping[str, Any], key: str) -> str:
    """The text under ``key``; empty if there is none."""
    value = values.get(key)
    return "" if is_missing(value) else json_text(value, f"`{key}`")


def json_text(value: Any, what: str) -> str:
    """A text that every table can hold; raises BadLineError, which begins with ``what``, for anything else."""
    if not isinstance(value, str):
        raise BadLineError(f"{what} is not a text")
    require_shorter(len(value), what)
    try:
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise BadLineError(f"{what} holds a character that Unicode does not have") from None
    return value


def require_shorter(characters: int, what: str) -> None:
    """Raise BadLineError where a text is longer than any page, label store or model can take."""
    # Asked for with each of many million values, the environment would take longer than reading them.
    if characters > TEXT_CHARACTERS.default or TEXT_CHARACTERS.variable in os.environ:
        _require(characters, what)


def _require(characters: int, what: str) -> None:
    if characters > TEXT_CHARACTERS.most:
        raise BadLineError(f"{what} has more than {TEXT_CHARACTERS.most:,} characters; {TEXT_CHARACTERS.said()}")


def is_missing(value: Any) -> bool:
    """Whether a cell is a gap: null, or the number that pandas writes for one."""
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124  # only NaN differs


def name_of(values: Mapping[str, Any], key: str) -> str:
    """The name under ``key``, a text or a whole number; empty if there is none."""
    value = values.get(key)
    if isinstance(value, str):
        return json_text(value, f"`{key}`")
    if is_missing(value):
        return ""
    number = whole_number(value)
    return json_text(value, f"`{key}`") if number is None else str(number)


def whole_number(value: Any) -> int | None:
    """``value`` if it is a whole number, also where a gap in its column has made it a float; None for others."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number_of(values: Mapping[str, Any], key: str) -> float | None:
    """The number under ``key``; None if there is none; raises BadLineError for what is no number."""
    value = values.get(key)
    if is_missing(value) or value == "":
        return None
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadLineError(f"`{key}` is no number")
    return number


def time_of(values: Mapping[str, Any], key: str) -> datetime | None:
    """The time under ``key`` in UTC: ISO 8601, without a zone UTC, or (milli)seconds since 1970."""
    value = values.get(key)
    if is_missing(value) or value == "":
        return None
    try:
        return _time(value, key).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        if isinstance(error, BadLineError):
            raise
        raise BadLineError(f"`{key}` is not a time such as 2016-01-31T16:53:19Z") from None


def _time(value: Any, key: str) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS else value, UTC)
    time = value if isinstance(value, datetime) else datetime.fromisoformat(json_text(value, f"`{key}`"))
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it; bytes, such as those of pictures, are left out."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items() if not isinstance(one, bytes)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value if not isinstance(one, bytes)]
    if isinstance(value, datetime | date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value
