"""The newest few of each user."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class NewestOfEach(Generic[_Item]):
    """Keeps at most ``most`` items of each user, the last ones; None keeps all."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._kept: dict[str, deque[_Item]] = {}
        self.let_go = 0

    def add(self, user: str, item: _Item) -> None:
        kept = self._kept.setdefault(user, deque(maxlen=self._most))
        self.let_go += len(kept) == self._most
        kept.append(item)

    def __iter__(self) -> Iterator[_Item]:
        for kept in self._kept.values():
            yield from kept
