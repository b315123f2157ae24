"""Differences between two estimates, with 95% intervals: of independent ones, and over the same prompts."""

import math

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, mean_interval


def difference_of_rates(one: Rate, other: Rate) -> Rate:
    """``one`` minus ``other`` where the two are independent, such as accuracies on different labels.

    The ends are recovered from those of the two intervals (Newcombe 1998, method 10; Zou and Donner 2008), so that it
    is right for proportions near 0 and 1 as well. ``n`` is that of the smaller one.
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Rate(value, value - below, value + above, min(one.n, other.n))


def paired_difference(one: ArrayLike, other: ArrayLike) -> Rate:
    """Mean of ``one`` minus that of ``other`` (shape [n] each, of the same prompts in one order), with its t interval.

    For values without a limit, such as gold scores; for shares see :func:`paired_difference_of_shares`. Raises
    ValueError where the shapes differ, and without a value.
    """
    return mean_interval(_gaps(one, other))


def paired_difference_of_shares(one: ArrayLike, other: ArrayLike) -> Rate:
    """The same for values from 0 to 1, such as wins, with the interval of Bonett and Price (2012).

    It adds one prompt on which each of the two is ahead by 1: without them, a few prompts on which the two do not
    differ at all would seem to prove that they never do.
    """
    gaps = _gaps(one, other)
    if np.abs(gaps).max() > 1:
        raise ValueError("shares lie between 0 and 1")
    value, adjusted = float(gaps.mean()), mean_interval([*gaps, 1.0, -1.0])
    return Rate(value, max(-1.0, min(adjusted.low, value)), min(1.0, max(adjusted.high, value)), gaps.size)


def _gaps(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"values of the shapes {first.shape} and {second.shape} are not pairs")
    return first - second
