"""All judgments of a file, kept aside until it is known whether they are imported, and what is known of them then."""

import pickle
from array import array
from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np

from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.machines import is_machine

Numbered = tuple[int, JudgmentLine]
"""A judgment and the number of its line, from 1."""


class GivenJudgment(NamedTuple):
    """A judgment with what the whole file says about its comparison and its annotator."""

    number: int
    line: JudgmentLine
    name: str
    """What the file calls the comparison, or a hash where it has no name for it."""
    earlier: int
    """How many earlier lines are by the same annotator about the same comparison."""
    same: int
    """How many lines are by the same annotator about the same comparison, this one included."""
    people: int
    """How many people judge the comparison."""
    first: int
    """The number of the first line about the comparison."""


class Spool:
    """The judgments lie in a file without a name, a batch at a time; in memory are some 60 bytes for each."""

    def __init__(self, size: int) -> None:
        """``size`` is that of a batch, in lines."""
        self._size, self._batches = size, 0
        self._batch: list[tuple[int, JudgmentLine, str]] = []
        self._file: IO[bytes] | None = None
        self._numbers, self._names, self._pairs = array("q"), array("q"), array("q")
        self._people = array("b")

    def __len__(self) -> int:
        return len(self._numbers)

    def fill(self, judgments: Iterable[Numbered]) -> None:
        """Take all judgments."""
        for number, line in judgments:
            if len(self._batch) == self._size:
                self._write()
            name = line.name
            self._batch.append((number, line, name))
            self._numbers.append(number)
            self._names.append(hash(name))
            self._pairs.append(hash((name, line.annotator)))
            self._people.append(not is_machine(line.annotator))

    def batches(self) -> Iterator[list[GivenJudgment]]:
        """The judgments in their order."""
        facts = _facts(*(np.asarray(one) for one in (self._numbers, self._names, self._pairs, self._people)))
        start = 0
        for batch in self._read():
            own = facts[start : start + len(batch)].tolist()
            yield [GivenJudgment(*line, *known) for line, known in zip(batch, own, strict=True)]
            start += len(batch)

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115  # it goes with the spool
        pickle.dump(self._batch, self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self._batch, self._batches = [], self._batches + 1

    def _read(self) -> Iterator[list[tuple[int, JudgmentLine, str]]]:
        if self._file is not None:
            self._file.seek(0)
            for _ in range(self._batches):
                yield pickle.load(self._file)  # noqa: S301  # what _write has written
        yield self._batch


def _facts(numbers: np.ndarray, names: np.ndarray, pairs: np.ndarray, people: np.ndarray) -> np.ndarray:
    """For each line the numbers that :class:`GivenJudgment` ends with: (lines, 4); arguments have shape (lines,)."""
    if not len(numbers):
        return np.empty((0, 4), dtype=np.int64)
    _, pair = np.unique(pairs, return_inverse=True)
    _, first_of_name, name = np.unique(names, return_index=True, return_inverse=True)
    earlier = _earlier(pair)
    persons = np.bincount(name[(earlier == 0) & (people == 1)], minlength=len(first_of_name))
    return np.stack([earlier, np.bincount(pair)[pair], persons[name], numbers[first_of_name][name]], axis=1)


def _earlier(groups: np.ndarray) -> np.ndarray:
    """For each place of (lines,), how many earlier places have the same value."""
    order = np.argsort(groups, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(groups[order])) + 1]
    sizes = np.diff(np.r_[starts, len(groups)])
    earlier = np.empty(len(groups), dtype=np.int64)
    earlier[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return earlier
