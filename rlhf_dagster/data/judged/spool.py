"""All judgments of a file, kept aside until it is known whether they are imported, and what is known of them then."""

import pickle
from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from rlhf_dagster.data.judged.batch import ColumnsBuilder, JudgedBatch, JudgmentColumns
from rlhf_dagster.data.line_records import JudgmentLine, JudgmentParts
from rlhf_dagster.records.machines import is_machine

Numbered = tuple[int, JudgmentLine | JudgmentParts]
"""A judgment and the number of its line, from 1."""
_LETTERS = 24 * 2**20
"""Letters after which a batch ends: it is in memory with all that is made of it, which is some 15 times as much."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Any odd number with bits all over."""


class Spool:
    """The judgments lie in a file without a name, a batch at a time; in memory are some 60 bytes for each."""

    def __init__(self, size: int, nobody: str) -> None:
        """``size`` is that of the largest batch, in lines; ``nobody`` stands for annotators that are not named."""
        self._size, self._nobody = size, nobody
        self._last: JudgmentColumns | None = None
        self._file: IO[bytes] | None = None
        self._keys: list[_Keys] = []

    def __len__(self) -> int:
        return sum(len(numbers) for numbers, *_ in self._keys)

    def fill(self, judgments: Iterable[Numbered]) -> None:
        """Take all judgments."""
        builder, lines = ColumnsBuilder(), 0
        for number, judgment in judgments:
            if lines == self._size or builder.letters > _LETTERS:
                self._write(builder.columns())
                builder, lines = ColumnsBuilder(), 0
            lines += 1
            listing, annotator, decision = judgment if isinstance(judgment, JudgmentParts) else judgment.parts
            builder.add(number, listing, annotator or self._nobody, decision)
        self._last = builder.columns()
        self._keys.append(_keys(self._last))

    def batches(self) -> Iterator[JudgedBatch]:
        """The judgments in their order."""
        facts = _facts(*(np.concatenate(one) for one in zip(*self._keys, strict=True)))
        start = 0
        for columns in self._read():
            yield JudgedBatch(columns, *facts[:, start : start + len(columns)])
            start += len(columns)

    def _write(self, columns: JudgmentColumns) -> None:
        if self._file is None:
            self._file = TemporaryFile()  # noqa: SIM115  # it goes with the spool
        pickle.dump(columns, self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self._keys.append(_keys(columns))

    def _read(self) -> Iterator[JudgmentColumns]:
        if self._file is not None:
            self._file.seek(0)
            for _ in self._keys[:-1]:
                yield pickle.load(self._file)  # noqa: S301  # what _write has written
        if self._last is not None:
            yield self._last


_Keys = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Of some lines their numbers, their comparisons and their comparisons with annotators as hashes, and whether they are
by people: (lines,) int64, int64, int64, bool."""


def _keys(columns: JudgmentColumns) -> _Keys:
    names = _hashes(columns.names)[columns.listing_of]
    annotators = _hashes(columns.annotators)[columns.annotator_of]
    pairs = (names.view(np.uint64) * _MIX + annotators.view(np.uint64)).view(np.int64)
    people = np.fromiter((not is_machine(name) for name in columns.annotators), dtype=bool)
    return columns.numbers, names, pairs, people[columns.annotator_of]


def _hashes(texts: Iterable[str]) -> np.ndarray:
    """(texts,) int64; the same in one process alone."""
    return np.fromiter(map(hash, texts), dtype=np.int64)


def _facts(numbers: np.ndarray, names: np.ndarray, pairs: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The columns of a :class:`JudgedBatch` for all lines: (4, lines); arguments have shape (lines,)."""
    if not len(numbers):
        return np.empty((4, 0), dtype=np.int64)
    _, pair = np.unique(pairs, return_inverse=True)
    _, first_of_name, name = np.unique(names, return_index=True, return_inverse=True)
    earlier = _earlier(pair)
    persons = np.bincount(name[(earlier == 0) & people], minlength=len(first_of_name))
    return np.stack([earlier, np.bincount(pair)[pair], persons[name], numbers[first_of_name][name]])


def _earlier(groups: np.ndarray) -> np.ndarray:
    """For each place of (lines,), how many earlier places have the same value."""
    order = np.argsort(groups, kind="stable")
    starts = np.r_[0, np.flatnonzero(np.diff(groups[order])) + 1]
    sizes = np.diff(np.r_[starts, len(groups)])
    earlier = np.empty(len(groups), dtype=np.int64)
    earlier[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return earlier
