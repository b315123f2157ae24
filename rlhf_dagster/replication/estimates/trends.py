"""How a figure moves along a row of budgets, rounds or coefficients, with 95% intervals."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, mean_interval

_TWO_SIDED = 2 * NormalDist().inv_cdf(0.975)
"""Standard errors between the ends of a 95% interval."""


def paired_slope(places: ArrayLike, values: ArrayLike) -> Rate:
    """By how much ``values`` (shape [K, n]) grow where ``places`` (shape [K]) grow by 1, over the same n prompts.

    A line is fitted through each prompt's K values by least squares, and the result is the mean of its slopes with
    their t interval, which knows that the K points share their prompts. Take logarithms of budgets that double. Raises
    ValueError where there are fewer than two different places.
    """
    measured = np.asarray(values, dtype=np.float64)
    return mean_interval(_contrast(places, len(measured)) @ measured)


def slope_of_rates(places: ArrayLike, rates: Sequence[Rate]) -> Rate:
    """The same through K independent estimates, such as accuracies on the labels of each round.

    The line is that of least squares; its variance is made of those of the estimates, read from the width of their
    intervals. ``n`` is that of the smallest one.
    """
    weights = _contrast(places, len(rates))
    errors = np.array([(rate.high - rate.low) / _TWO_SIDED for rate in rates])
    value = float(weights @ np.array([rate.value for rate in rates]))
    half = _TWO_SIDED / 2 * float(np.hypot.reduce(weights * errors))
    return Rate(value, value - half, value + half, min(rate.n for rate in rates))


def fall_after_peak(values: ArrayLike) -> Rate:
    """By how much ``values`` (shape [K, n], of the same n prompts) fall from their best place to the last one.

    The best place is chosen on every other prompt and the fall is measured on the rest, ``n`` of which are counted: the
    largest of several measurements is too large by chance. It is 0 where the last place is the best. Raises ValueError
    where there are fewer than two prompts.
    """
    return _from_peak(values, -1)


def rise_to_peak(values: ArrayLike) -> Rate:
    """By how much ``values`` are higher at their best place than at the first; see :func:`fall_after_peak`."""
    return _from_peak(values, 0)


def paired_steps(values: ArrayLike) -> list[Rate]:
    """By how much ``values`` (shape [K, n], over the same n prompts) grow from each place to the next, K - 1 in all.

    A figure that only grows (or only falls) is one of which every step does; a slope alone may hide one that does not.
    """
    measured = np.asarray(values, dtype=np.float64)
    return [mean_interval(after - before) for before, after in pairwise(measured)]


def _contrast(places: ArrayLike, k: int) -> np.ndarray:
    """The weights [K] under which K values sum to the slope of their line of least squares."""
    found = np.asarray(places, dtype=np.float64)
    centred = found - found.mean()
    if found.shape != (k,) or not centred.any():
        raise ValueError(f"{k} values at places of the shape {found.shape} have no slope")
    return centred / float(centred @ centred)


def _from_peak(values: ArrayLike, end: int) -> Rate:
    measured = np.asarray(values, dtype=np.float64)
    if measured.shape[1] < 2:
        raise ValueError("a peak is chosen on some prompts and measured on others, so two are needed")
    chosen, rest = measured[:, ::2], measured[:, 1::2]
    return mean_interval(rest[chosen.mean(axis=1).argmax()] - rest[end])
