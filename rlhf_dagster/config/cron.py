"""Whether a cron expression can be followed. Importing this imports no Dagster."""

import re

FIELDS = {"minute": (0, 59), "hour": (0, 23), "day of month": (1, 31), "month": (1, 12), "day of week": (0, 7)}
"""The fields in their order, with their smallest and largest number."""
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_PART = re.compile(r"(\*|\w+(?:-\w+)?)(?:/(\d+))?")


def cron_problem(expression: str) -> str:
    """What is wrong with a cron expression of five fields; empty where nothing is."""
    given = expression.split()
    if len(given) != len(FIELDS):
        return f"must have five fields, not {expression!r}"
    for text, (name, (low, high)) in zip(given, FIELDS.items(), strict=True):
        if not all(_fits(part, name, low, high) for part in text.lower().split(",")):
            return f"has {text!r} as {name}, which goes from {low} to {high}"
    return ""


def _fits(part: str, name: str, low: int, high: int) -> bool:
    found = _PART.fullmatch(part)
    if found is None:
        return False
    span, step = found.groups()
    ends = [] if span == "*" else [_number(end, name) for end in span.split("-")]
    inside = all(end is not None and low <= end <= high for end in ends)
    return inside and (step is None or 0 < int(step) <= high)


def _number(text: str, name: str) -> int | None:
    """The number that a name of a month or a day stands for, or that is written."""
    if name == "month" and text in _MONTHS:
        return _MONTHS.index(text) + 1
    if name == "day of week" and text in _DAYS:
        return _DAYS.index(text)
    return int(text) if text.isascii() and text.isdigit() else None
