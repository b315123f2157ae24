"""Medians, spreads and ratios of interleaved repetitions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Estimate:
    """A median over repetitions, with the smallest and the largest."""

    median: float
    low: float
    high: float
    repetitions: int


def estimate(values: Sequence[float]) -> Estimate:
    """Raises ValueError without values."""
    if not values:
        raise ValueError("no repetition to take a median of")
    return Estimate(median(values), min(values), max(values), len(values))


def speed(seconds: Sequence[float], amount: float) -> float:
    """Units per second: ``amount`` in each lap, over the median lap."""
    return amount / median(seconds)


def ratios(ours: Sequence[float], peer: Sequence[float]) -> Estimate:
    """How many times faster we are: one ratio for each repetition, in which both sides ran one after the other.

    What slows the machine down for a while then slows both, and the ratio stays.
    """
    return estimate([one / other for one, other in zip(ours, peer, strict=True)])
