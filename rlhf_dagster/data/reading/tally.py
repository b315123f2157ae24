"""What was read, refused and left out, counted; few reasons are kept, however many rows are refused."""

import re
from collections import Counter

REFUSALS_SHOWN = 10
"""Refusals that are kept with their numbers."""
_REASONS = 200
"""Different reasons that are counted apart."""
OTHER_REASONS = "other reasons"
_OF_ONE_ROW = re.compile(r"'[^']*'|\"[^\"]*\"|comparison \S+(?= has another)|\d+")


class ReadTally:
    def __init__(self) -> None:
        self.read = 0
        """Judgments, prompts or the like, with those refused."""
        self.refused = 0
        self.reasons: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.axes: set[str] = set()
        """On which something was rated."""
        self._first: list[tuple[int, str]] = []

    def refuse(self, number: int, reason: str) -> None:
        self.refused += 1
        self.reasons[self._kind(reason)] += 1
        self._first.append((number, reason))
        if len(self._first) > 100 * REFUSALS_SHOWN:
            self._first = self.first

    @property
    def first(self) -> list[tuple[int, str]]:
        """The first refusals by their numbers."""
        return sorted(self._first)[:REFUSALS_SHOWN]

    @property
    def mostly_refused(self) -> bool:
        return 2 * self.refused > self.read

    def _kind(self, reason: str) -> str:
        """The reason without what only one row has."""
        kind = _OF_ONE_ROW.sub("…", reason)
        return kind if kind in self.reasons or len(self.reasons) < _REASONS else OTHER_REASONS
