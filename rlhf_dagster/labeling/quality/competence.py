"""How often each annotator is right, told from agreement alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PRIOR_LABELS = 4.0
"""Labels that the prior counts for, so that a person with few labels stays near everybody's mean."""
FLOOR = 0.05
"""Least weight of a label, before weights are scaled to a mean of 1."""
ITERATIONS = 200
TOLERANCE = 1e-6


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
    by_comparison: dict[str, list[AnnotatorChoice]] = defaultdict(list)
    for choice in choices:
        by_comparison[choice.comparison].append(choice)
    shared = {name: given for name, given in by_comparison.items() if len(given) > 1 or name in known}
    if not shared:
        return {}
    skill = dict.fromkeys(sorted({choice.annotator for choice in choices}), 0.7)
    for _ in range(ITERATIONS):
        right: dict[str, float] = defaultdict(float)
        total: dict[str, int] = defaultdict(int)
        for name, given in shared.items():
            truth = _posterior(given, skill, known.get(name))
            for choice in given:
                right[choice.annotator] += truth[choice.best]
                total[choice.annotator] += 1
        mean = sum(right.values()) / sum(total.values())
        updated = {name: (right[name] + PRIOR_LABELS * mean) / (total[name] + PRIOR_LABELS) for name in skill}
        change = max(abs(updated[name] - skill[name]) for name in skill)
        skill = updated
        if change < TOLERANCE:
            break
    return skill


def label_weights(skill: Mapping[str, float], k: int) -> dict[str, float]:
    """Weights with a mean of 1 over annotators: how far each is above guessing among ``k`` responses."""
    above = {name: max((value - 1 / k) / (1 - 1 / k), FLOOR) for name, value in skill.items()}
    mean = sum(above.values()) / len(above) if above else 1.0
    return {name: value / mean for name, value in above.items()}


def _posterior(given: Sequence[AnnotatorChoice], skill: Mapping[str, float], known: int | None) -> list[float]:
    """The probability of each response to be the best, given who named what."""
    k = given[0].k
    if known is not None:
        return [float(index == known) for index in range(k)]
    likelihood = [1.0] * k
    for choice in given:
        p = min(max(skill[choice.annotator], 1e-3), 1 - 1e-3)
        for index in range(k):
            likelihood[index] *= p if index == choice.best else (1 - p) / (k - 1)
    total = sum(likelihood)
    return [value / total for value in likelihood]
