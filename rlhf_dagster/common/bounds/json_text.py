"""JSON of others."""

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises ValueError for what is none, also where it is nested deeper than can be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_deeper_than(value: Any, most: int) -> bool:
    """Whether more than ``most`` lists and objects are within one another in a JSON value."""
    level = [value]
    for _ in range(most + 1):
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not parts:
            return False
        level = [part for inner in parts for part in inner]
    return True
