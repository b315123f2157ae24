"""A source of rows that can be read more than once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.data.lines import BadLineError

NumberedRow = tuple[int, Mapping[str, Any] | BadLineError]
"""A row's number, counted from 1, and its values, or why there are none."""


@dataclass(frozen=True)
class RowSource:
    """Where rows come from; ``rows`` reads them anew at each call, and holds few of them at a time."""

    name: str
    """Stands in tables where a row names no source of its own."""
    place: str
    """Begins sentences about the source."""
    unit: str
    """What a row is called there: line or row."""
    rows: Callable[[], Iterator[NumberedRow]]
    """Raises UserError where the source cannot be read."""
