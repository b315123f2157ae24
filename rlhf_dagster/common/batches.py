"""Batches of whatever comes."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")


def batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of ``size`` items in their order; the last one can be shorter, and none is empty."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
