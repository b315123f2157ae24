"""Which of several responses a text or a number names."""

import re
from collections.abc import Sequence
from typing import Any

from rlhf_dagster.data.line_values import is_missing, whole_number
from rlhf_dagster.data.lines import BadLineError

TIE, NO_DECISION = "tie", "cannot decide"
_TIES = {"tie", "ties", "tied", "both", "equal", "same", "draw", "both good", "equally good", "no preference"}
_BOTH_BAD = {"bothbad", "both bad", "both_bad", "tie (bothbad)", "tie (both bad)", "neither"}
_UNDECIDED = {"", "cannot decide", "cannot_decide", "unsure", "unknown", "not sure", "skip", "none", "null", "?"}
_WORDS = {"left": 0, "first": 0, "right": 1, "second": 1}


def position_of(value: Any, marks: Sequence[str], columns: Sequence[str] = (), zero_ties: bool = False) -> int | str:
    """The index of the response that ``value`` names, TIE or NO_DECISION; raises BadLineError where it names none.

    ``marks`` tell the responses apart (`a` and `b`, or `1` and `2`), ``columns`` are those that hold them. A number
    beside letters may count from 0 or from 1, so it names none; nor does 0 beside 1 and 2, unless ``zero_ties``.
    """
    if is_missing(value):
        return NO_DECISION
    number = whole_number(value)
    text = str(number) if number is not None else str(value).strip().lower()
    if text in _TIES or text in _BOTH_BAD:
        return TIE
    if text in _UNDECIDED:
        return NO_DECISION
    found = _named(text, marks, columns)
    if found is not None:
        return found
    if text == "0" and zero_ties:
        return TIE
    raise BadLineError(f"{str(value)[:40]!r} names none of the responses {', '.join(marks)}")


def is_both_bad(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in _BOTH_BAD


def _named(text: str, marks: Sequence[str], columns: Sequence[str]) -> int | None:
    names = [column.lower() for column in columns]
    if text in names:
        return names.index(text)
    if text in marks:
        return list(marks).index(text)
    if len(marks) == 2 and text in _WORDS:
        return _WORDS[text]
    ending = re.search(r"(?:^|[^a-z0-9])([a-z]|\d{1,2})$|[a-z](\d{1,2})$", text)
    mark = (ending[1] or ending[2]) if ending else ""
    return list(marks).index(mark) if mark in marks else None
