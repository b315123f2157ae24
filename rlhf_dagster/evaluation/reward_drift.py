"""The over-optimisation alarm: does the policy look as good to reward models that saw other labels?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.evaluation.win_rate import POLICY, REWARD_MODEL, SFT, WinRate, win_rate

HALVES = ("half A", "half B")
"""The reward models trained on halves of the labels."""


@dataclass(frozen=True)
class RewardDrift:
    """``drift`` is the largest difference between the win rates of two reward models, those named in ``between``."""

    drift: Rate
    between: tuple[str, str]
    win_rates: list[WinRate]

    def as_dict(self) -> dict[str, Any]:
        rates = [rate.as_dict() for rate in self.win_rates]
        return self.drift.as_dict() | {"between": list(self.between), "win_rates": rates}


def reward_drift(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> RewardDrift:
    """How far the reward models disagree about the policy's win rate against SFT.

    ``scores[model]`` holds, for each of at least two reward models, the scores of the responses of ``policy`` and
    ``sft`` to the same prompts, in the same order (shape [n] each).

    Bai et al. 2022 (section 4.2) optimise against a preference model trained on one half of the labels and judge with
    one trained on the other: their scores drift apart as the policy comes to exploit what only the first has learned,
    the gap between proxy and gold reward that Gao et al. 2022 measure. Here the policy is optimised against the model
    of all labels, and two more are trained on halves. All of them see the real quality that the policy
    has gained; a gain that depends on which labels a model saw is noise that was optimised.

    Differences are taken prompt by prompt, with Student's t intervals that hold for all pairs of models together
    (Bonferroni), since the largest is picked.
    """
    pairs = list(combinations(scores, 2))
    outcomes = {name: _outcomes(given[POLICY], given[SFT]) for name, given in scores.items()}
    confidence = 1 - 0.05 / len(pairs)
    differences = {(a, b): mean_interval(outcomes[a] - outcomes[b], confidence) for a, b in pairs}
    between = max(pairs, key=lambda pair: abs(differences[pair].value))
    rates = [win_rate(given[POLICY], given[SFT], judge=name, against=SFT) for name, given in scores.items()]
    return RewardDrift(_upwards(differences[between]), between, rates)


def drift_scores(
    reward_model: Mapping[str, Sequence[float]], halves: Sequence[Mapping[str, Sequence[float]]]
) -> dict[str, Mapping[str, Sequence[float]]]:
    """The argument of :func:`reward_drift`: the scores of the reward model and of the two halves, by name."""
    return {REWARD_MODEL: reward_model, **dict(zip(HALVES, halves, strict=True))}


def _outcomes(policy: ArrayLike, sft: ArrayLike) -> np.ndarray:
    """1 where the policy's response scores higher, 1/2 where equal, 0 where lower; shape [n]."""
    return (np.sign(np.asarray(policy, dtype=np.float64) - np.asarray(sft, dtype=np.float64)) + 1) / 2


def _upwards(difference: Rate) -> Rate:
    """The same difference, taken in the order that makes it positive."""
    if difference.value >= 0:
        return difference
    return Rate(-difference.value, -difference.high, -difference.low, difference.n)
