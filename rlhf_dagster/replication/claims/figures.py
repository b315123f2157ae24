"""What claims have in common when they put their figures together: rows of estimates, sentences, made-up figures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.replication.base import Measured
from rlhf_dagster.replication.verdicts import across_seeds


def along(figures: Sequence[Measured], *path: str | int) -> list[Rate]:
    """The estimates of the list that stands under ``path``, one for each setting or round, over all seeds."""
    found: Any = figures[0]
    for step in path:
        found = found[step]
    return [across_seeds(figures, *path, index) for index in range(len(found))]


def between(places: ArrayLike, values: ArrayLike, place: float) -> np.ndarray:
    """``values`` (shape [K, n]) at ``place``, on the straight line between those at the nearest ``places`` (shape [K]).

    Beyond the first and the last place their values go on. ``places`` may come in any order.
    """
    order = np.argsort(places)
    known, rows = np.asarray(places, dtype=np.float64)[order], np.asarray(values, dtype=np.float64)[order]
    right = int(np.clip(np.searchsorted(known, place), 1, len(known) - 1))
    share = np.clip((place - known[right - 1]) / max(known[right] - known[right - 1], 1e-12), 0.0, 1.0)
    mixed: np.ndarray = (1 - share) * rows[right - 1] + share * rows[right]
    return mixed


def in_percent(rate: Rate) -> str:
    """A share with its interval, such as ``86% (83 to 89%)``; Student's may reach beyond what a share can be."""
    low, high = max(rate.low, 0.0), min(rate.high, 1.0)
    return f"{rate.value:.0%} ({100 * low:.0f} to {high:.0%})"


def in_points(rate: Rate) -> str:
    """A difference of two shares in percentage points, such as ``+3.1 points (0.4 to 5.8)``."""
    return f"{100 * rate.value:+.1f} points ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def in_digits(rate: Rate) -> str:
    """An estimate with its interval, such as ``1.42 (1.30 to 1.54)``."""
    return f"{rate.value:.2f} ({rate.low:.2f} to {rate.high:.2f})"


def planted(value: float, reach: float = 0.03, n: int = 512) -> dict[str, Any]:
    """A made-up estimate in JSON's form, ``reach`` from the ends of its interval."""
    return Rate(value, value - reach, value + reach, n).as_dict()
