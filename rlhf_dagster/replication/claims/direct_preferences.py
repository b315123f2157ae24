"""C11: DPO learns from preferences without a reward model, as well as PPO does with one (Rafailov et al. 2023)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_dagster.common.intervals import mean_interval
from rlhf_dagster.evaluation.win_rate import SFT
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_line, label_axes, new_chart, place_legend
from rlhf_dagster.replication.claims.arms import (
    BEST_OF_SFT,
    DPO_BETA,
    DPO_BETAS,
    KL_SWEEP,
    RLOO_COEFFICIENTS,
    SOME_COMPARISONS,
    at_kl,
    by_dpo,
    by_rloo,
    labelled,
)
from rlhf_dagster.replication.claims.figures import along, between, in_digits, in_percent, planted
from rlhf_dagster.replication.estimates.differences import paired_difference
from rlhf_dagster.replication.measures.answers import VariantAnswers, answers_of, on_same_prompts
from rlhf_dagster.replication.measures.preferences import gold_wins, share_of_wins
from rlhf_dagster.replication.verdicts import CLEAR_GOLD, across_seeds, must_exceed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_PREFERRED = 0.6
"""What the win rate of DPO over SFT must exceed; the paper has 61% over references of people."""
AS_GOOD = -CLEAR_GOLD
"""By how much DPO's gold score may be behind PPO's at the same KL."""


class DirectPreferences:
    name = "C11"
    title = "DPO learns without a reward model"
    source = "Rafailov et al. 2023, sections 6.1 and 6.2"
    paper = (
        "DPO reaches the highest reward at every KL (sentiment); its summaries are preferred to references on 61% of "
        "posts, PPO's on 57%."
    )
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (labelled(SOME_COMPARISONS), *(variant for arm in _arms(size).values() for variant in arm))

    def measure(self, results: Results, size: Size) -> Measured:
        loops = {name: [results.loop(variant) for variant in variants] for name, variants in _arms(size).items()}
        sft = answers_of(loops["PPO"][0], SFT)
        arms = {name: [answers_of(loop) for loop in found] for name, found in loops.items()}
        dpo = arms["DPO"][DPO_BETAS[size].index(DPO_BETA)]
        return {
            "frontiers": {name: _frontier(policies, sft) for name, policies in arms.items()},
            "best_of_n": results.probe(labelled(SOME_COMPARISONS), BEST_OF_SFT.name),
            "dpo_over_sft": share_of_wins(gold_wins(dpo, sft)).as_dict(),
            "dpo_over_ppo": _ahead(dpo, arms["PPO"], sft),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        over_sft, ahead = (across_seeds(figures, name) for name in ("dpo_over_sft", "dpo_over_ppo"))
        return (
            must_exceed("DPO, which has no reward model, is preferred to SFT", over_sft, LEAST_PREFERRED, percent=True),
            must_exceed("At the same KL its gold score is not clearly behind PPO's", ahead, AS_GOOD),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        for series, name in enumerate(figures[0]["frontiers"]):
            distances = [max(rate.value, 0.0) ** 0.5 for rate in along(figures, "frontiers", name, "kl")]
            draw_line(panel, distances, along(figures, "frontiers", name, "gold"), name, series=series)
        best = [kl**0.5 for kl in figures[0]["best_of_n"]["kl"]]
        draw_line(panel, best, along(figures, "best_of_n", "gold"), "best of n", series=4)
        label_axes(panel, "Gold score over SFT", "square root of the KL (nats)")
        place_legend(panel)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        over_sft, ahead = (across_seeds(figures, name) for name in ("dpo_over_sft", "dpo_over_ppo"))
        return (
            f"The gold judge prefers DPO to SFT on {in_percent(over_sft)} of prompts; at the same KL its gold score is "
            f"{in_digits(ahead)} over PPO's."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(over_sft=0.72, over_ppo=0.1)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(over_sft=0.52, over_ppo=-0.6)]


def _arms(size: Size) -> Mapping[str, Sequence[Variant]]:
    return {
        "PPO": [at_kl(SOME_COMPARISONS, coefficient) for coefficient in KL_SWEEP[size]],
        "DPO": [by_dpo(beta) for beta in DPO_BETAS[size]],
        "RLOO": [by_rloo(coefficient) for coefficient in RLOO_COEFFICIENTS[size]],
    }


def _frontier(policies: Sequence[VariantAnswers], sft: VariantAnswers) -> dict[str, Any]:
    """KL and gold score over SFT of each policy of an arm, by rising KL."""
    pairs = [on_same_prompts(policy, sft) for policy in sorted(policies, key=lambda one: one.kl().value)]
    return {
        "kl": [policy.kl().as_dict() for policy, _ in pairs],
        "gold": [mean_interval(policy.gold - start.gold).as_dict() for policy, start in pairs],
    }


def _ahead(policy: VariantAnswers, others: Sequence[VariantAnswers], sft: VariantAnswers) -> dict[str, Any]:
    """By how much a policy's gold score is over that of other policies at its KL, between which lines are drawn."""
    own, start, *rest = on_same_prompts(policy, sft, *others)
    distances = [0.0, *(max(one.kl().value, 0.0) ** 0.5 for one in rest)]
    scores = np.array([start.gold, *(one.gold for one in rest)])
    return paired_difference(own.gold, between(distances, scores, max(own.kl().value, 0.0) ** 0.5)).as_dict()


def _made_up(over_sft: float, over_ppo: float) -> Measured:
    row = {"kl": list(map(planted, (1.0, 4.0, 9.0))), "gold": list(map(planted, (0.5, 1.0, 1.3)))}
    best = {"n": [1, 4, 16], "kl": [0.0, 0.64, 1.84], "gold": list(map(planted, (0.0, 0.7, 1.1)))}
    return {
        "frontiers": dict.fromkeys(("PPO", "DPO", "RLOO"), row),
        "best_of_n": best | {"proxy": list(map(planted, (0.0, 0.9, 1.5)))},
        "dpo_over_sft": planted(over_sft),
        "dpo_over_ppo": planted(over_ppo, 0.1),
    }
