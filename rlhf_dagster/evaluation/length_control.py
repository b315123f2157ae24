"""What a win rate would be if both responses were equally long: the length-controlled win rate of AlpacaEval 2."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate

_CERTAIN = 30.0
"""Log-odds below whose negative nobody tells a probability from 0."""
_MOST_STEPS, _LONGEST_STEP, _CLOSE = 100, 2.0, 1e-7
"""Of the search for the effect of length."""


def length_controlled(
    outcomes: ArrayLike, differences: ArrayLike, clusters: Sequence[Any], confidence: float = 0.95
) -> Rate:
    """The win rate at equal length, with its interval.

    ``outcomes`` (shape [n]) are 1 where the policy's response is preferred, 1/2 for a tie and 0 otherwise;
    ``differences`` (shape [n]) its length minus the other's, in characters; ``clusters`` names what each judgment is
    about. Dubois et al. 2024 ("Length-controlled AlpacaEval", equations 1 and 2) fit

        P(preferred) = sigmoid(theta + phi tanh(difference / standard deviation of the differences))

    and report sigmoid(theta). Their third term, how hard an instruction is, is fitted to the answers of many models,
    and there are two here. A tie counts as half a win and half a loss. The fit is Firth's (1993), so that it exists
    also where one policy always wins; the interval is that of its profile likelihood (Heinze and Schemper 2002), in
    which judgments of one cluster count as in :func:`~rlhf_dagster.common.intervals.clustered_rate`. ``n`` counts
    clusters.

    Where one policy's responses are always the longer ones, nobody has seen how they compare at equal length: the value
    is NaN, and the interval 0 to 1, as where there is no judgment.
    """
    won, longer = np.asarray(outcomes, dtype=np.float64), np.asarray(differences, dtype=np.float64)
    if not won.size == longer.size == len(clusters):
        raise ValueError(f"{won.size} outcomes, {longer.size} differences and {len(clusters)} clusters do not match")
    sizes = np.unique(np.asarray(clusters), return_counts=True)[1].astype(np.float64)
    if won.size == 0 or not longer.min() <= 0 <= longer.max():
        return Rate(math.nan, 0.0, 1.0, sizes.size)
    weight, spread = float(sizes.sum() / (sizes**2).sum()), float(longer.std())
    fit = _Fit(won, np.tanh(longer / spread) if spread else longer, weight)
    value, low, high = map(_sigmoid, fit.centre_and_ends(confidence))
    return Rate(value, low, high, sizes.size)


@dataclass(frozen=True)
class _Fit:
    """The logistic regression; all of ``length`` is 0 where responses are equally long."""

    won: np.ndarray
    length: np.ndarray
    weight: float
    """Of each judgment."""

    def centre_and_ends(self, confidence: float) -> tuple[float, float, float]:
        """theta where the likelihood is largest, and where it has fallen to the ends of the interval."""
        from scipy.optimize import minimize_scalar
        from scipy.stats import chi2

        start = math.log((self.won.sum() + 0.5) / ((1 - self.won).sum() + 0.5))
        found = minimize_scalar(lambda theta: -self.profile(theta), bracket=(start - 0.1, start + 0.1))
        centre, lowest = float(found.x), -float(found.fun) - float(chi2.ppf(confidence, 1)) / 2

        def above(theta: float) -> float:
            return self.profile(theta) - lowest

        return centre, _crossing(above, centre, -0.5), _crossing(above, centre, 0.5)

    def profile(self, theta: float) -> float:
        """The penalised log-likelihood of theta with the phi that suits it best."""
        return self.likelihood(theta, self._best_phi(theta))

    def _best_phi(self, theta: float) -> float:
        """By Fisher scoring on Firth's modified score, in steps that get shorter wherever they turn back."""
        phi, longest, before = 0.0, _LONGEST_STEP, 0.0
        for _ in range(_MOST_STEPS if self.length.any() else 0):
            step = self._step(theta, phi)
            longest = min(longest, abs(before) / 2) if step * before < 0 else longest
            before = max(-longest, min(longest, step))
            phi += before
            if abs(step) < _CLOSE:
                break
        return phi

    def _step(self, theta: float, phi: float) -> float:
        """The score of phi over its information."""
        odds = theta + phi * self.length
        variance, missed = self._variance(odds), np.exp(-np.logaddexp(0.0, odds))
        total = float(variance.sum())
        centred = self.length - float((variance * self.length).sum()) / total
        leverage = variance / total + variance * centred**2 / float((variance * centred**2).sum())
        score = self.weight * (self.won - 1 + missed) + leverage * (missed - 0.5)
        return float((score * self.length).sum() / (variance * self.length**2).sum())

    def likelihood(self, theta: float, phi: float) -> float:
        """Log-likelihood, and half the logarithm of the determinant of Fisher's information (Jeffreys' prior)."""
        odds = theta + phi * self.length
        lost = np.logaddexp(0.0, odds)
        fitted = self.won * (odds - lost) - (1 - self.won) * lost
        return self.weight * float(fitted.sum()) + self._information(odds) / 2

    def _information(self, odds: np.ndarray) -> float:
        """Logarithm of the determinant."""
        variance = self._variance(odds)
        total = float(variance.sum())
        if not self.length.any():
            return math.log(total)
        centred = self.length - float((variance * self.length).sum()) / total
        return math.log(total) + math.log(float((variance * centred**2).sum()))

    def _variance(self, odds: np.ndarray) -> np.ndarray:
        """Of each judgment, times its weight."""
        return self.weight * np.exp(-np.logaddexp(0.0, odds) - np.logaddexp(0.0, -odds))


def _crossing(above: Callable[[float], float], inside: float, step: float) -> float:
    """Where ``above`` falls to 0 in the direction of ``step``; infinite where it does not."""
    from scipy.optimize import brentq

    ends = (inside + step * 2.0**power for power in range(7))
    end = next((one for one in ends if above(one) < 0), None)
    return math.copysign(math.inf, step) if end is None else float(brentq(above, inside, end, xtol=1e-6))


def _sigmoid(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -_CERTAIN else 0.0
