"""The JSON object in a judge's answer, which may have words or a code fence around it."""

import json
from typing import Any

from rlhf_dagster.common.bounds.limits import REPLY_CHARACTERS
from rlhf_dagster.judge.asking import UnreadableAnswer


def last_object_with(name: str, text: str) -> dict[str, Any]:
    """The last JSON object in ``text`` that has the key ``name``.

    The last, since judges that think aloud come to their answer in the end. Raises :class:`UnreadableAnswer`.
    """
    if len(text) > REPLY_CHARACTERS.most:
        # Each bracket may open an object that is read to its end: what has many of them takes the square of its length.
        raise UnreadableAnswer(f"it has more than {REPLY_CHARACTERS.most:,} characters")
    decoder, found, start = json.JSONDecoder(), None, text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found = value if name in value else found
        start = text.find("{", end)
    if found is None:
        raise UnreadableAnswer(f"it holds no JSON object with `{name}`")
    return dict(found)


def number_between(value: Any, lowest: float, highest: float, name: str) -> float:
    """``value`` as a number within two bounds. Raises :class:`UnreadableAnswer`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableAnswer(f"`{name}` is no number")
    if not lowest <= value <= highest:
        raise UnreadableAnswer(f"`{name}` is not between {lowest:g} and {highest:g}")
    return float(value)
