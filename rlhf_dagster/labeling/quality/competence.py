"""How often each annotator is right, told from agreement alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRIOR_LABELS = 4.0
"""Labels that the prior counts for, so that a person with few labels stays near everybody's mean."""
FLOOR = 0.05
"""Least weight of a label, before weights are scaled to a mean of 1."""
ITERATIONS = 200
TOLERANCE = 1e-6
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnnotatorChoice:
    """One annotator's decision between the ``k`` responses of a comparison."""

    comparison: str
    annotator: str
    best: int
    k: int


def competences(choices: Sequence[AnnotatorChoice], known: Mapping[str, int] | None = None) -> dict[str, float]:
    """The probability that each annotator names the best response, by expectation maximisation.

    The model of Dawid and Skene (1979) with one parameter for each annotator instead of a confusion matrix, because
    which response is first means nothing: the best is named with probability p, each of the others with
    (1 - p) / (k - 1). ``known`` holds the best response of gold questions. A Beta prior of ``PRIOR_LABELS`` labels
    around everybody's mean keeps estimates from few labels moderate. Who shares no comparison with anybody, and
    answered no gold question, gets that mean. Empty where nobody can be compared.
    """
    known = known or {}
    given = _given(choices, known)
    if not len(given.annotator):
        return {}
    names = sorted({choice.annotator for choice in choices})
    skill: _Floats = np.full(len(names), 0.7)
    codes = {name: code for code, name in enumerate(names)}
    annotator = np.array([codes[name] for name in given.annotator], dtype=np.int64)
    total = np.bincount(annotator, minlength=len(names))
    for _ in range(ITERATIONS):
        right = np.bincount(annotator, _posterior(given, skill[annotator])[given.slot], len(names))
        mean = right.sum() / total.sum()
        updated = (right + PRIOR_LABELS * mean) / (total + PRIOR_LABELS)
        change = np.abs(updated - skill).max()
        skill = updated
        if change < TOLERANCE:
            break
    return dict(zip(names, skill.tolist(), strict=True))


def label_weights(skill: Mapping[str, float], k: int) -> dict[str, float]:
    """Weights with a mean of 1 over annotators: how far each is above guessing among ``k`` responses."""
    above = {name: max((value - 1 / k) / (1 - 1 / k), FLOOR) for name, value in skill.items()}
    mean = sum(above.values()) / len(above) if above else 1.0
    return {name: value / mean for name, value in above.items()}


@dataclass(frozen=True)
class _Given:
    """The choices in comparisons that several people made, or whose best response is known.

    The responses of all these comparisons lie one after the other in slots.
    """

    annotator: Sequence[str]
    """Who made each choice: (choices,)."""
    slot: NDArray[np.int64]
    """Of the response that each choice names: (choices,)."""
    others: _Floats
    """How many other responses each choice was between: (choices,)."""
    begins: NDArray[np.int64]
    """The first slot of each comparison: (comparisons,)."""
    sizes: NDArray[np.int64]
    """Responses of each comparison: (comparisons,)."""
    truth: _Floats
    """Of each slot, 1 for the known best response, 0 beside it, NaN where nothing is known: (slots,)."""


def _given(choices: Sequence[AnnotatorChoice], known: Mapping[str, int]) -> _Given:
    comparison = _codes(choice.comparison for choice in choices)
    several = np.bincount(comparison)[comparison] > 1 if len(choices) else np.zeros(0, dtype=bool)
    kept = [choice for choice, shared in zip(choices, several, strict=True) if shared or choice.comparison in known]
    names = list(dict.fromkeys(choice.comparison for choice in kept))
    comparison, sizes = _codes(choice.comparison for choice in kept), np.zeros(len(names), dtype=np.int64)
    sizes[comparison] = [choice.k for choice in kept]
    begins = np.cumsum(sizes) - sizes
    truth = np.full(int(sizes.sum()), np.nan)
    for name, begin, size in zip(names, begins, sizes, strict=True):
        if name in known:
            truth[begin : begin + size] = 0.0
            truth[begin + known[name]] = 1.0
    best = np.array([choice.best for choice in kept], dtype=np.int64)
    others = np.array([max(choice.k - 1, 1) for choice in kept], dtype=np.float64)
    return _Given([choice.annotator for choice in kept], begins[comparison] + best, others, begins, sizes, truth)


def _codes(names: Iterable[str]) -> NDArray[np.int64]:
    """A number for each name, in the order of their first appearance."""
    codes: dict[str, Any] = {}
    return np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)


def _posterior(given: _Given, skill: _Floats) -> _Floats:
    """The probability of each response to be the best: (slots,), by the skill of who made each choice: (choices,).

    What is the same for all responses of a comparison cancels: left is, for each choice of a response, how much
    likelier it is if that response is the best.
    """
    p = np.clip(skill, 1e-3, 1 - 1e-3)
    gains = np.bincount(given.slot, np.log(p * given.others / (1 - p)), len(given.truth))
    highest = np.repeat(np.maximum.reduceat(gains, given.begins), given.sizes)
    likelihood = np.exp(gains - highest)
    total = np.repeat(np.add.reduceat(likelihood, given.begins), given.sizes)
    return np.where(np.isnan(given.truth), likelihood / total, given.truth)
