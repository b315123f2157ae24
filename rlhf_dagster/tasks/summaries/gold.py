"""The gold judge of summaries: coverage of the key facts, no fact that is not there, own words, and brevity."""

from dataclasses import dataclass

from rlhf_dagster.tasks.summaries.facts import SummaryFacts

LONG = 12
"""Tokens from which a summary is longer than it need be."""
MIDDLE = 3.0
"""Taken from every score, so that a summary with half of the facts of a post has a score of about 0."""


@dataclass(frozen=True)
class SummaryWeights:
    """What each thing seen in a summary is worth; those but the first are taken away."""

    coverage: float = 1.0
    """For each fact said rightly."""
    false: float = 2.0
    """For each thing said wrongly."""
    copied: float = 1.0
    """For each copied sentence."""
    broken: float = 1.0
    """Factor on errors, and half of it for each sentence that repeats or is beside the point."""
    brevity: float = 0.15
    """For each token beyond :data:`LONG`."""


GOLD = SummaryWeights()


def summary_value(seen: SummaryFacts, weights: SummaryWeights = GOLD) -> float:
    """How good a summary is."""
    value = weights.coverage * len(seen.covered) - weights.false * seen.false - weights.copied * seen.copied
    value -= weights.broken * (seen.errors + 0.5 * (seen.asides + seen.repeated))
    return value - weights.brevity * max(0, seen.tokens - LONG) - MIDDLE
