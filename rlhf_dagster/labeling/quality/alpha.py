"""Krippendorff's alpha, with an interval from resampled comparisons."""

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rlhf_dagster.common.intervals import wilson

RESAMPLES = 2000
_AT_ONCE = 4_000_000
"""Most counts that resamples are drawn of at once."""

Distance = Literal["nominal", "ordinal"]
_Floats = NDArray[np.float64]


def krippendorff_alpha(values: pd.DataFrame, distance: Distance) -> dict[str, Any] | None:
    """Alpha of ``values`` with a 95% bootstrap interval; ``n`` counts the units that have two labels or more.

    ``values`` has a row for each label: ``unit``, what is judged; ``value``, what the label says of it; and
    ``comparison``, of which units are parts. Alpha is that of Krippendorff, *Content Analysis* (2018), chapter 12. It
    looks only at the values of a unit, not at who gave them. None where no unit has two labels, or nothing varies
    (0 / 0).

    The interval resamples comparisons with all their labels, so it holds where comparisons have different numbers of
    labels and where the units of one depend on each other. Krippendorff's own bootstrap (2006) draws single pairs of
    labels as if each were independent: where some comparisons have many labels its interval can miss alpha itself. The
    ends are those of the bias-corrected and accelerated bootstrap (Efron 1987), moved outwards as far as Student's t is
    wider than the normal distribution (Hesterberg 2015, section 4.1.2). Where all labels agree no resample differs; the
    lower end is then what Wilson's interval allows for comparisons that disagree.
    """
    sums, units = _coincidences(values)
    alpha = float(_alpha(sums.sum(axis=0)[None], distance)[0]) if units else math.nan
    if math.isnan(alpha):
        return None
    low, high = _interval(sums, distance)
    return {"value": alpha, "low": low, "high": high, "n": units}


def _coincidences(values: pd.DataFrame) -> tuple[_Floats, int]:
    """The matrix of coincidences of each comparison, shape [comparisons, V, V], and the number of units behind them.

    A unit with m labels adds to each ordered pair of its labels 1 / (m - 1).
    """
    units, codes = pd.factorize(values["unit"])[0], pd.factorize(values["value"], sort=True)
    counts = np.zeros((units.max(initial=-1) + 1, len(codes[1])))
    np.add.at(counts, (units, codes[0]), 1)
    pairable = counts.sum(axis=1) >= 2
    _, first = np.unique(units, return_index=True)
    comparisons = pd.factorize(values["comparison"].to_numpy()[first[pairable]])[0]
    given = counts[pairable]
    pairs = given[:, :, None] * given[:, None, :] - given[:, :, None] * np.eye(given.shape[1])
    pairs /= (given.sum(axis=1) - 1)[:, None, None]
    sums = np.zeros((comparisons.max(initial=-1) + 1, *pairs.shape[1:]))
    np.add.at(sums, comparisons, pairs)
    return sums, int(pairable.sum())


def _alpha(coincidences: _Floats, distance: Distance) -> _Floats:
    """Alpha of each matrix of coincidences, shape [R, V, V]; NaN where nothing varies."""
    given = coincidences.sum(axis=2)
    apart = _distances(given, distance)
    observed = (coincidences * apart).sum(axis=(1, 2))
    expected = np.einsum("rc,rk,rck->r", given, given, apart) / (given.sum(axis=1) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def _distances(given: _Floats, distance: Distance) -> _Floats:
    """Squared differences between values, shape [R, V, V], from how often each is given, shape [R, V].

    Ordinal ones are those between the middles of the ranks that a value's labels take up.
    """
    if distance == "nominal":
        return np.broadcast_to(1 - np.eye(given.shape[1]), (*given.shape, given.shape[1]))
    middle = given.cumsum(axis=1) - given / 2
    return (middle[:, :, None] - middle[:, None, :]) ** 2


def _interval(sums: _Floats, distance: Distance) -> tuple[float | None, float | None]:
    """The ends of the interval; None where there is a single comparison, which says nothing about others."""
    total, alpha = sums.sum(axis=0), _alpha(sums.sum(axis=0)[None], distance)[0]
    if len(sums) < 2:
        return None, None
    if alpha == 1:
        return _lower_end_of_full_agreement(total, len(sums)), 1.0
    found = np.concatenate([_alpha(drawn, distance) for drawn in _resamples(sums)])
    found = found[~np.isnan(found)]
    below = (found < alpha).mean() + (found == alpha).mean() / 2
    tails = _tails(below, _alpha(total - sums, distance), _wider(sums))
    low, high = np.quantile(found, tails)
    return float(low), float(high)


def _tails(below: float, left_out: _Floats, wider: float) -> list[float]:
    """The shares of resamples below the two ends (Efron 1987, section 3).

    ``below`` is the share below alpha, and ``left_out`` the alpha without each comparison in turn, whose skewness is
    that of alpha.
    """
    normal = NormalDist()
    influence = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread else 0.0
    bias = normal.inv_cdf(min(max(below, 1 / RESAMPLES), 1 - 1 / RESAMPLES))
    moved = [bias - wider, bias + wider]
    return [normal.cdf(bias + z / max(1 - acceleration * z, 0.1)) for z in moved]


def _wider(sums: _Floats) -> float:
    """How many standard deviations the ends are away, by Student's t for the effective number of comparisons."""
    from scipy.stats import t

    labels = sums.sum(axis=(1, 2))
    n = max(2.0, float(labels.sum() ** 2 / (labels**2).sum()))
    return math.sqrt(n / (n - 1)) * float(t.ppf(0.975, n - 1))


def _lower_end_of_full_agreement(total: _Floats, comparisons: int) -> float:
    given = total.sum(axis=1) / total.sum()
    return max(-1.0, 1 - wilson(0, comparisons).high / float(1 - (given**2).sum()))


def _resamples(sums: _Floats) -> Iterator[_Floats]:
    """Sums over as many comparisons as there are, drawn with replacement, in blocks of shape [R, V, V].

    Comparisons with equal coincidences are drawn together, by how many there are.
    """
    n, shape = len(sums), sums.shape[1:]
    patterns, counts = np.unique(sums.reshape(n, -1), axis=0, return_counts=True)
    generator = np.random.default_rng(0)
    block = max(1, _AT_ONCE // len(patterns))
    for start in range(0, RESAMPLES, block):
        drawn = generator.multinomial(n, counts / n, size=min(block, RESAMPLES - start))
        yield (drawn @ patterns).reshape(-1, *shape)
