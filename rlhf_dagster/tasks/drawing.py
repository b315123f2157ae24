"""Drawing the texts of a task: a split's own random numbers, and distinct texts out of an endless stream."""

import itertools
import random
from collections.abc import Iterator
from typing import TypeVar

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.tasks.base import SPLITS

Item = TypeVar("Item")


def split_rng(task: str, purpose: str, split: str, seed: int) -> random.Random:
    """Random numbers for one purpose; raises UserError where ``split`` is none."""
    if split not in SPLITS:
        raise UserError(f"`{split}` is not a split; use one of: {', '.join(SPLITS)}.")
    return random.Random(int(content_hash(task, purpose, split, seed), 16))


def distinct(n: int, items: Iterator[Item]) -> list[Item]:
    """The first ``n`` distinct ones, so that a longer list begins with the shorter one."""
    if n < 0:
        raise UserError(f"Cannot draw {n} texts; ask for 0 or more.")
    seen: set[Item] = set()
    fresh = (item for item in items if not (item in seen or seen.add(item)))  # type: ignore[func-returns-value]
    return list(itertools.islice(fresh, n))
