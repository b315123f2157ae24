"""When simulated annotators submit: a few at a time, each for a sitting, at irregular intervals."""

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from rlhf_dagster.records.ids import content_hash

AT_WORK = 3
"""Annotators who label at the same time."""
SITTING = 8.0
"""Labels that an annotator gives on average before leaving."""
_Item = TypeVar("_Item")


def come_and_go(work: Sequence[_Item], annotator: Callable[[_Item], str], seed: int) -> list[_Item]:
    """``work`` in the order in which it is done, each annotator's own in the order given.

    At most ``AT_WORK`` annotators take turns at random. After each label its annotator leaves with probability 1 /
    ``SITTING``, and an annotator with work to do, perhaps the same one, sits down.
    """
    rng = random.Random(content_hash("sittings", seed, len(work)))
    waiting: dict[str, list[_Item]] = {}
    for item in reversed(work):
        waiting.setdefault(annotator(item), []).append(item)
    away, present = sorted(waiting), list[str]()
    order: list[_Item] = []
    while away or present:
        while away and len(present) < AT_WORK:
            present.append(away.pop(rng.randrange(len(away))))
        name = rng.choice(present)
        order.append(waiting[name].pop())
        leaves = rng.random() < 1 / SITTING
        if leaves or not waiting[name]:
            present.remove(name)
            away += [name] if waiting[name] else []
    return order


def gap(per_minute: float, *key: object) -> float:
    """Seconds before a label, exponentially distributed with mean 60 / ``per_minute``; equal for an equal ``key``."""
    share = (int(content_hash("gap", *key)[:12], 16) + 1) / (16**12 + 1)
    return -math.log(share) * 60 / per_minute
