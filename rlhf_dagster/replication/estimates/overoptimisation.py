"""The law of over-optimisation: what a policy gains by the gold judge, as it moves away from where it started."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate

Law = Literal["rl", "best_of_n"]
DRAWS = 1000
_SEED = 0


@dataclass(frozen=True)
class LawFit:
    """``gain = d (a - b log d)`` for ``rl``, and ``d (a - b d)`` for ``best_of_n``; d is the square root of the KL."""

    a: float
    b: float
    r_squared: float
    """Share of the variance of the gains around their mean that the law explains; negative where it explains less."""
    law: Law

    def gain(self, distances: ArrayLike) -> np.ndarray:
        """What the law says at ``distances`` (square roots of nats, shape [n]); 0 at 0."""
        d = np.asarray(distances, dtype=np.float64)
        return _terms(d, self.law) @ np.array([self.a, self.b])


def fit_law(distances: ArrayLike, gains: ArrayLike, law: Law = "rl") -> LawFit:
    """The law that is closest, by least squares, to ``gains`` (shape [K]) at ``distances`` (shape [K], 0 or more).

    Gao, Schulman and Hilton 2022 (section 3.1). Gains are gold scores minus that of the policy at distance 0. Raises
    ValueError where there are fewer than three points, through which two parameters always fit.
    """
    d, gained = np.asarray(distances, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    if d.shape != gained.shape or d.size < 3:
        raise ValueError(f"{gained.size} gains at {d.size} distances do not show a law; three points are needed")
    solved, *_ = np.linalg.lstsq(_terms(d, law), gained, rcond=None)
    left, all_of_it = ((_terms(d, law) @ solved - gained) ** 2).sum(), ((gained - gained.mean()) ** 2).sum()
    explained = 1 - left / all_of_it if all_of_it > 0 else float("nan")
    return LawFit(float(solved[0]), float(solved[1]), float(explained), law)


def fit_over_prompts(kl: ArrayLike, gold: ArrayLike, start: ArrayLike, law: Law = "rl") -> dict[str, Any]:
    """``a``, ``b`` and ``r_squared`` of the law through K policies, each in JSON's form with an interval over prompts.

    ``kl`` (nats) and ``gold`` have the shape [K, n]: of each policy's response to each of the same n prompts; ``start``
    (shape [n]) holds the gold scores of the policy at distance 0. A policy's distance is the square root of its mean
    KL, and 0 where chance has put that below 0. The intervals are those of the bootstrap (percentiles of
    :data:`DRAWS` draws of n prompts), always the same ones.
    """
    nats, scores, first = (np.asarray(given, dtype=np.float64) for given in (kl, gold, start))
    if nats.shape != scores.shape or scores.shape[1:] != first.shape:
        raise ValueError(f"values of the shapes {nats.shape}, {scores.shape} and {first.shape} do not match")

    def fitted(chosen: np.ndarray) -> LawFit:
        distances = np.sqrt(np.maximum(nats[:, chosen].mean(axis=1), 0.0))
        return fit_law(distances, scores[:, chosen].mean(axis=1) - first[chosen].mean(), law)

    n = first.size
    draws = np.random.default_rng(_SEED).integers(0, n, (DRAWS, n))
    return _with_intervals(fitted(np.arange(n)), [fitted(chosen) for chosen in draws], n)


def _with_intervals(fit: LawFit, drawn: Sequence[LawFit], n: int) -> dict[str, Any]:
    found = {}
    for name in ("a", "b", "r_squared"):
        low, high = np.nanpercentile([getattr(one, name) for one in drawn], [2.5, 97.5])
        found[name] = Rate(getattr(fit, name), float(low), float(high), n).as_dict()
    return found


def _terms(d: np.ndarray, law: Law) -> np.ndarray:
    """What a and b are multiplied by, shape [K, 2]; d log d is 0 at 0."""
    if law == "best_of_n":
        return np.stack([d, -(d**2)], axis=-1)
    return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=-1)
