"""C1: few labels suffice to learn a style (Ziegler et al. 2019)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf_dagster.evaluation.win_rate import SFT
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import count_axis, draw_bound, draw_line, label_axes, new_chart, place_legend
from rlhf_dagster.replication.claims.arms import (
    FEW_COMPARISONS,
    MANY_COMPARISONS,
    PREPARED,
    SOME_COMPARISONS,
    labelled,
    zero_shot_answers,
)
from rlhf_dagster.replication.claims.figures import along, in_percent, planted
from rlhf_dagster.replication.estimates.trends import paired_slope
from rlhf_dagster.replication.measures.answers import VariantAnswers, answers_of
from rlhf_dagster.replication.measures.preferences import gold_wins, share_of_wins
from rlhf_dagster.replication.verdicts import across_seeds, must_exceed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUDGETS: Mapping[Size, Sequence[int]] = {
    "quick": (FEW_COMPARISONS, SOME_COMPARISONS, MANY_COMPARISONS),
    "full": (FEW_COMPARISONS, 500, SOME_COMPARISONS, 2500, MANY_COMPARISONS),
}
CLEARLY = 0.75
"""What the win rate over zero-shot must exceed at the largest budget; the paper found 0.86 to 0.88."""
ENOUGH = 0.65
"""The same over SFT."""


class FewLabels:
    name = "C1"
    title = "A few thousand labels suffice for a style"
    source = "Ziegler et al. 2019, section 3.1"
    paper = "With 5,000 comparisons people prefer the policy to the zero-shot model on 86 to 88% of prompts."
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (PREPARED, *map(labelled, BUDGETS[size]))

    def measure(self, results: Results, size: Size) -> Measured:
        budgets = list(BUDGETS[size])
        loops = [results.loop(labelled(budget)) for budget in budgets]
        zero_shot = zero_shot_answers(results)
        policies = [answers_of(loop) for loop in loops]
        over_sft = [gold_wins(policy, answers_of(loop, SFT)) for policy, loop in zip(policies, loops, strict=True)]
        return {
            "budgets": budgets,
            "over_sft": [share_of_wins(wins).as_dict() for wins in over_sft],
            "over_zero_shot": [_over(policy, zero_shot) for policy in policies],
            "growth": paired_slope([math.log2(budget) for budget in budgets], over_sft).as_dict(),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        most = f"{figures[0]['budgets'][-1]:,} comparisons"
        zero_shot, sft = (across_seeds(figures, name, -1) for name in ("over_zero_shot", "over_sft"))
        growth = across_seeds(figures, "growth")
        return (
            must_exceed(f"With {most} the policy is preferred to zero-shot", zero_shot, CLEARLY, percent=True),
            must_exceed(f"With {most} the policy is preferred to SFT", sft, ENOUGH, percent=True),
            must_exceed("The win rate over SFT grows with each doubling of the labels", growth, 0.0, percent=True),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        budgets = figures[0]["budgets"]
        draw_line(panel, budgets, along(figures, "over_zero_shot"), "zero-shot")
        draw_line(panel, budgets, along(figures, "over_sft"), "SFT", series=1)
        draw_bound(panel, 0.5)
        count_axis(panel, budgets)
        label_axes(panel, "Win rate by the gold judge over", "comparisons", percent=True)
        place_legend(panel)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        rates, budgets = along(figures, "over_zero_shot"), figures[0]["budgets"]
        return (
            f"The gold judge prefers the policy to the zero-shot model on {in_percent(rates[-1])} of prompts with "
            f"{budgets[-1]:,} comparisons, and on {in_percent(rates[0])} with {budgets[0]:,}."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up([0.62, 0.78, 0.87], [0.60, 0.76, 0.85], 0.06)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up([0.52, 0.50, 0.51], [0.51, 0.50, 0.52], 0.0)]


def _over(policy: VariantAnswers, other: VariantAnswers) -> dict[str, float | None]:
    return share_of_wins(gold_wins(policy, other)).as_dict()


def _made_up(over_zero_shot: Sequence[float], over_sft: Sequence[float], growth: float) -> Measured:
    return {
        "budgets": [FEW_COMPARISONS, SOME_COMPARISONS, MANY_COMPARISONS],
        "over_sft": list(map(planted, over_sft)),
        "over_zero_shot": list(map(planted, over_zero_shot)),
        "growth": planted(growth, 0.01),
    }
