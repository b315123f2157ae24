"""Whether a cron expression can be followed. Importing this imports no Dagster."""

import re

FIELDS = {"minute": (0, 59), "hour": (0, 23), "day of month": (1, 31), "month": (1, 12), "day of week": (0, 7)}
"""The fields in their order, with their smallest and largest number."""
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_LAST_DAY = dict(enumerate([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], start=1))
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
    return _no_such_day(given[2], given[3].lower())


def _no_such_day(days: str, months: str) -> str:
    """Why no month has one of the days, which Dagster would look for in vain; empty where one has."""
    day = min(_values(days, "day of month"))
    if day <= max(_LAST_DAY[month] for month in _values(months, "month")):
        return ""
    return f"has {days!r} as day of month, which no month of {months!r} has"


def _values(text: str, name: str) -> set[int]:
    """The numbers that a field stands for, of one that fits. A span that goes backwards goes round the end."""
    low, high = FIELDS[name]
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, last = (low, high) if span == "*" else _ends(span, name, high if step else None)
        around = [*range(first, last + 1)] if first <= last else [*range(first, high + 1), *range(low, last + 1)]
        found.update(around[:: int(step or 1)])
    return found


def _ends(span: str, name: str, to: int | None) -> tuple[int, int]:
    """First and last number of a span; a single number with a step goes on ``to`` the end."""
    first, _, last = span.partition("-")
    begin = _number(first, name) or 0
    return begin, (_number(last, name) or 0) if last else (begin if to is None else to)


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
