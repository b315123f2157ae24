"""Which of many texts were seen before, in eight bytes for each."""

from collections.abc import Iterable, Sequence

import numpy as np

_PENDING = 100_000
"""Newly seen texts that are kept in a set before they are sorted in among the others."""


class SeenTexts:
    """A set of texts that only answers whether it holds one.

    It keeps 64-bit hashes: of ten million texts, one that is new is taken for a known one with a probability of 10^-12.
    """

    def __init__(self, texts: Iterable[str | None] = ()) -> None:
        self._sorted = np.unique(_hashes(texts))
        self._pending: set[int] = set()

    def __contains__(self, text: str) -> bool:
        return self.known([text])[0]

    def known(self, texts: Sequence[str]) -> list[bool]:
        """For each text, whether it was seen."""
        hashes = _hashes(texts)
        if len(self._sorted):
            places = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
            there = (self._sorted[places] == hashes).tolist()
        else:
            there = [False] * len(hashes)
        return [old or one in self._pending for old, one in zip(there, hashes.tolist(), strict=True)]

    def add(self, texts: Iterable[str]) -> None:
        self._pending.update(map(hash, texts))
        if len(self._pending) > _PENDING:
            new = np.fromiter(self._pending, dtype=np.int64, count=len(self._pending))
            self._sorted, self._pending = np.union1d(self._sorted, new), set()


def _hashes(texts: Iterable[str | None]) -> np.ndarray:
    """(texts,) int64; the same in one process alone."""
    return np.fromiter(map(hash, texts), dtype=np.int64)
