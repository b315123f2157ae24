"""Estimates with confidence intervals: proportions, means, and proportions over clustered observations."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Rate:
    """An estimate, the ends of its confidence interval, and the number of independent observations behind it.

    ``value`` is NaN, and an end infinite or NaN, where the observations do not determine it.
    """

    value: float
    low: float
    high: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """JSON's form: numbers that are not finite become None."""
        return {name: finite_or_none(number) for name, number in asdict(self).items()}


UNMEASURED = Rate(math.nan, math.nan, math.nan, 0)
"""An estimate without an observation."""


def finite_or_none(number: float) -> float | None:
    """``number``, or None where JSON has no number for it (NaN and the infinities)."""
    return number if math.isfinite(number) else None


def wilson(successes: float, n: int, confidence: float = 0.95) -> Rate:
    """The score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1).

    ``successes`` may be fractional, ties counting half; the interval is then wider than it needs to be, because a tie
    varies less than a win or a loss. Raises ValueError for ``n`` = 0 and for successes outside 0..n.
    """
    if n < 1:
        raise ValueError("a proportion needs at least one observation")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes do not fit {n} observations")
    low, high = _wilson_ends(successes / n, n, confidence)
    return Rate(successes / n, low, high, n)


def wilson_of_effective_size(successes: int, n: int, size: float, confidence: float = 0.95) -> Rate:
    """The proportion ``successes`` / ``n`` with the interval of ``size`` independent observations."""
    low, high = _wilson_ends(successes / n, size, confidence)
    return Rate(successes / n, low, high, n)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Rate:
    """Student's t interval of a mean; ``values`` has shape [n].

    One value leaves both ends infinite, and a NaN among the values makes the estimate NaN. Raises ValueError for n = 0.
    """
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    n = numbers.size
    if n == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(numbers.mean())
    if n == 1:
        return Rate(mean, -math.inf, math.inf, 1)
    half = float(t.ppf((1 + confidence) / 2, n - 1) * numbers.std(ddof=1) / math.sqrt(n))
    return Rate(mean, mean - half, mean + half, n)


def mean_of_shares(values: ArrayLike, confidence: float = 0.95) -> Rate:
    """The mean of shares, each in 0..1, with the part of Student's t interval that lies in 0..1; shape [n].

    Equal shares leave that interval no width, which a few of them do not prove. It is then Wilson's of n observations:
    wide enough for all shares of that mean, since none varies more than a yes or a no. Raises ValueError for n = 0.
    """
    rate = mean_interval(values, confidence)
    if rate.n > 1 and rate.low < rate.high:
        return Rate(rate.value, max(0.0, rate.low), min(1.0, rate.high), rate.n)
    return wilson(rate.n * min(max(rate.value, 0.0), 1.0), rate.n, confidence)


def mean_count(values: ArrayLike, confidence: float = 0.95) -> Rate:
    """The mean of counts with Student's t interval, which does not begin below 0; ``values`` has shape [n].

    Where nothing was counted, the interval ends at the largest mean of a Poisson distribution that is not refuted
    (Garwood 1936): about 3.7 / n. Raises ValueError for n = 0.
    """
    rate = mean_interval(values, confidence)
    if rate.value == 0:
        return Rate(0.0, 0.0, -math.log((1 - confidence) / 2) / rate.n, rate.n)
    return Rate(rate.value, max(0.0, rate.low), rate.high, rate.n)


def clustered_rate(values: ArrayLike, clusters: Sequence[Any], confidence: float = 0.95) -> Rate:
    """A proportion over observations that repeat, such as several labels of one comparison.

    ``values`` (shape [m], each in 0..1) are averaged with equal weights; ``clusters`` names the cluster of each. The
    Wilson interval uses Kish's effective sample size (sum of cluster sizes)^2 / (sum of their squares), the size under
    complete agreement inside every cluster: with any less agreement the interval is wider than it needs to be, never
    narrower. ``n`` of the result counts clusters. Raises ValueError where there is no observation.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise ValueError("a proportion needs at least one observation")
    if numbers.size != len(clusters):
        raise ValueError(f"{numbers.size} values and {len(clusters)} clusters do not match")
    sizes = np.unique(np.asarray(clusters), return_counts=True)[1].astype(np.float64)
    value = float(numbers.mean())
    low, high = _wilson_ends(value, float(sizes.sum() ** 2 / (sizes**2).sum()), confidence)
    return Rate(value, low, high, sizes.size)


def share_with_interval(successes: int, n: int) -> dict[str, Any] | None:
    """A share with its 95% Wilson interval; None where ``n`` is 0."""
    if n == 0:
        return None
    return wilson(int(successes), int(n)).as_dict()


def interval_columns(found: dict[str, Any] | None, name: str, prefix: str | None = None) -> dict[str, Any]:
    """A rate as the columns ``name``, ``<prefix>_low`` and ``<prefix>_high``, null where there is none."""
    prefix = prefix or name
    values = found or {"value": None, "low": None, "high": None}
    return {name: values["value"], f"{prefix}_low": values["low"], f"{prefix}_high": values["high"]}


def _wilson_ends(proportion: float, n: float, confidence: float) -> tuple[float, float]:
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z * z / n
    centre = (proportion + z * z / (2 * n)) / shrink
    half = z * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n)) / shrink
    # In exact arithmetic the ends stay within 0..1 and around the proportion; rounding can miss by the last digit.
    return max(0.0, min(centre - half, proportion)), min(1.0, max(centre + half, proportion))
