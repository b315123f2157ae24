"""Judgments in columns, in which what many of them share is there once."""

from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rlhf_dagster.data.line_records import Decision, Listing
from rlhf_dagster.records.machines import is_source


class GivenJudgment(NamedTuple):
    """A judgment with what the whole file says about its comparison and its annotator."""

    number: int
    """Of its line, from 1."""
    listing: Listing
    annotator: str
    decision: Decision
    name: str
    """What the file calls the comparison, or a hash where it has no name for it."""
    earlier: int
    """How many earlier lines are by the same annotator about the same comparison."""
    same: int
    """How many lines are by the same annotator about the same comparison, this one included."""


@dataclass(frozen=True)
class JudgmentColumns:
    """Some judgments in the order of their lines; ``*_of`` say which of the values each has: (lines,) int32."""

    numbers: np.ndarray
    """Of their lines: (lines,) int64."""
    listings: list[Listing]
    """In the order of their first lines."""
    names: list[str]
    """What the file calls each of these comparisons, or hashes."""
    listing_of: np.ndarray
    annotators: list[str]
    annotator_of: np.ndarray
    decisions: list[Decision]
    decision_of: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class JudgedBatch:
    """:class:`JudgmentColumns` with what the whole file says about each line: (lines,) int64."""

    columns: JudgmentColumns
    earlier: np.ndarray
    """How many earlier lines are by the same annotator about the same comparison."""
    same: np.ndarray
    """How many lines are by the same annotator about the same comparison, this one included."""
    people: np.ndarray
    """How many people judge the comparison."""
    first: np.ndarray
    """The number of the first line about the comparison."""

    def __len__(self) -> int:
        return len(self.columns)

    def given(self, place: int) -> GivenJudgment:
        """The judgment at a place from 0."""
        columns, listing = self.columns, self.columns.listing_of[place]
        return GivenJudgment(
            int(columns.numbers[place]),
            columns.listings[listing],
            columns.annotators[columns.annotator_of[place]],
            columns.decisions[columns.decision_of[place]],
            columns.names[listing],
            int(self.earlier[place]),
            int(self.same[place]),
        )

    @cached_property
    def by_source(self) -> np.ndarray:
        """Whether each line is by what stands for the annotators of a file that names none: (lines,) bool."""
        return _each(map(is_source, self.columns.annotators))[self.columns.annotator_of]

    @cached_property
    def named(self) -> np.ndarray:
        """Whether the file has a name for each line's comparison: (lines,) bool."""
        return _each(bool(one.comparison) for one in self.columns.listings)[self.columns.listing_of]

    @cached_property
    def decided(self) -> np.ndarray:
        """Whether each line decides something: (lines,) bool."""
        return _each(one.ranks is not None for one in self.columns.decisions)[self.columns.decision_of]

    @cached_property
    def withdrawn(self) -> np.ndarray:
        """Whether each line takes a judgment back: (lines,) bool."""
        return _each(one.withdrawn for one in self.columns.decisions)[self.columns.decision_of]


class ColumnsBuilder:
    def __init__(self) -> None:
        self.letters = 0
        """Of prompts and responses, those that are shared once."""
        self._numbers, self._decided = array("q"), list[Decision]()
        self._listings: dict[Listing, int] = {}
        self._annotators: dict[str, int] = {}
        self._decisions: dict[int, int] = {}
        self._listing_of, self._annotator_of, self._decision_of = array("i"), array("i"), array("i")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, number: int, listing: Listing, annotator: str, decision: Decision) -> None:
        self._numbers.append(number)
        place = self._listings.get(listing)
        if place is None:
            place = self._listings[listing] = len(self._listings)
            self.letters += len(str(listing.prompt)) + sum(map(len, listing.responses))
        self._listing_of.append(place)
        self._annotator_of.append(self._annotators.setdefault(annotator, len(self._annotators)))
        # A decision may hold metadata, which have no hash: only one and the same object is shared.
        place = self._decisions.get(id(decision))
        if place is None:
            place = self._decisions[id(decision)] = len(self._decided)
            self._decided.append(decision)
        self._decision_of.append(place)

    def columns(self) -> JudgmentColumns:
        listings = list(self._listings)
        return JudgmentColumns(
            numbers=np.asarray(self._numbers),
            listings=listings,
            names=[one.name for one in listings],
            listing_of=np.asarray(self._listing_of),
            annotators=list(self._annotators),
            annotator_of=np.asarray(self._annotator_of),
            decisions=self._decided,
            decision_of=np.asarray(self._decision_of),
        )


def _each(values: Any) -> np.ndarray:
    return np.fromiter(values, dtype=bool)
