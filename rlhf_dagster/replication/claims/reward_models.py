"""C13: what reward models and labels are like over more labels, rounds and strengths (Stiennon, Bai, Llama 2)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.records.round_keys import round_key
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import count_axis, draw_bars, draw_line, label_axes, new_chart
from rlhf_dagster.replication.claims.arms import MANY_COMPARISONS, MORE_PAIRS, NEW_PAIRS, labelled, online
from rlhf_dagster.replication.claims.few_labels import BUDGETS
from rlhf_dagster.replication.claims.figures import along, in_percent, in_points, planted
from rlhf_dagster.replication.estimates.differences import difference_of_rates, paired_difference_of_shares
from rlhf_dagster.replication.estimates.trends import paired_slope
from rlhf_dagster.replication.measures.labels import votes
from rlhf_dagster.replication.measures.preferences import share_of_wins
from rlhf_dagster.replication.verdicts import across_seeds, must_exceed, must_stay_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLIGHT, CLEAR = 0.5, 1.0
"""Strengths of a label of a pair."""


class RewardModels:
    name = "C13"
    title = "Reward models: more labels, later rounds, stronger preferences, several people"
    source = "Stiennon et al. 2020, figure 6; Bai et al. 2022, section 4; Llama 2, tables 7 and 8"
    paper = (
        "Accuracy rises by about a point with each doubling of the labels, falls as the policy improves (74, 70, 67%), "
        "and rises with the strength of the preference (55 to 81%); more labels are unsure (30 to 40%); the mode of "
        "three people agrees with researchers more often than one (77 against 72%)."
    )
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (*map(labelled, BUDGETS[size]), online(size))

    def measure(self, results: Results, size: Size) -> Measured:
        budgets = list(BUDGETS[size])
        right = [_first_round(results, labelled(budget))["agrees_with_gold"] for budget in budgets]
        one, together = _voted(results)
        return {
            "budgets": budgets,
            "by_budget": [share_of_wins(found).as_dict() for found in right],
            "by_doubling": paired_slope([math.log2(budget) for budget in budgets], right).as_dict(),
            **_by_round(results, size),
            "people": [share_of_wins(shares).as_dict() for shares in (one, together)],
            "of_three": paired_difference_of_shares(together, one).as_dict(),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        def found(name: str) -> Rate:
            return across_seeds(figures, name)

        return (
            must_exceed("Accuracy rises with each doubling of the labels", found("by_doubling"), 0.0, percent=True),
            must_stay_below(
                "It is lower on responses of later rounds than of the first", found("fall"), 0.0, percent=True
            ),
            must_exceed(
                "It is higher where a preference is clear than where slight", found("strength"), 0.0, percent=True
            ),
            must_exceed(
                "More labels are unsure in the last round than in the first", found("growth"), 0.0, percent=True
            ),
            must_exceed("The mode of three people beats one", found("of_three"), 0.0, percent=True),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (labels, rounds, strengths) = new_chart(3)
        budgets, numbers = figures[0]["budgets"], range(1, len(figures[0]["by_round"]) + 1)
        draw_line(labels, budgets, along(figures, "by_budget"))
        count_axis(labels, budgets)
        label_axes(labels, "Accuracy by labels", "comparisons", percent=True)
        draw_line(rounds, numbers, along(figures, "by_round"))
        rounds.set_xticks(numbers)
        label_axes(rounds, "Accuracy on pairs of each round", "round", percent=True)
        draw_bars(strengths, ["slight", "clear"], along(figures, "by_strength"))
        label_axes(strengths, "Accuracy by strength of the label", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        rounds, strengths, unsure, people = (
            along(figures, name) for name in ("by_round", "by_strength", "unsure", "people")
        )
        return (
            f"Accuracy rises by {in_points(across_seeds(figures, 'by_doubling'))} with each doubling of the labels, "
            f"goes from {in_percent(rounds[0])} in the first round to {in_percent(rounds[-1])} in the last, and from "
            f"{in_percent(strengths[0])} to {in_percent(strengths[-1])} with the strength of the label; "
            f"{in_percent(unsure[0])} of the first and {in_percent(unsure[-1])} of the last labels are unsure; "
            f"one person is right about {in_percent(people[0])} of comparisons, the mode of three about "
            f"{in_percent(people[1])}."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(sign=1)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(sign=-1)]


def _first_round(results: Results, variant: Variant) -> Mapping[str, Any]:
    found: Mapping[str, Any] = results.probe(variant, NEW_PAIRS.name)["rounds"][0]
    return found


def _voted(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """By comparison with three labels, whether one person and whether their mode names what the gold judge does."""
    voted = votes(results.loop(labelled(MANY_COMPARISONS)), round_key(1))
    return voted.one, voted.together


def _by_round(results: Results, size: Size) -> dict[str, Any]:
    """The last reward model on pairs of responses of the policy that each round sampled from."""
    rounds = results.probe(online(size), MORE_PAIRS.name)["rounds"]
    accuracy = [_accuracy([one]) for one in rounds]
    unsure = [share_of_wins([strength < CLEAR for strength in one["strength"]]) for one in rounds]
    by_strength = [_accuracy(rounds, [strength]) for strength in (SLIGHT, CLEAR)]
    return {
        "by_round": [rate.as_dict() for rate in accuracy],
        "fall": difference_of_rates(_accuracy(rounds[1:]), accuracy[0]).as_dict(),
        "by_strength": [rate.as_dict() for rate in by_strength],
        "strength": difference_of_rates(by_strength[1], by_strength[0]).as_dict(),
        "unsure": [rate.as_dict() for rate in unsure],
        "growth": difference_of_rates(unsure[-1], unsure[0]).as_dict(),
    }


def _accuracy(rounds: Sequence[Mapping[str, Any]], strengths: Sequence[float] = (SLIGHT, CLEAR)) -> Rate:
    """On pairs of some rounds, of which the annotator preferred one response so strongly; ties count nowhere."""
    pairs = [pair for one in rounds for pair in zip(one["agrees_with_people"], one["strength"], strict=True)]
    return share_of_wins([right for right, strength in pairs if strength in strengths])


def _made_up(sign: int) -> Measured:
    """Figures as the papers have them, or the other way around."""

    def row(*values: float) -> list[dict[str, Any]]:
        return list(map(planted, values[::sign]))

    return {
        "budgets": [250, 1000, 5000],
        "by_budget": row(0.68, 0.72, 0.75),
        "by_doubling": planted(sign * 0.013, 0.004),
        "by_round": row(0.74, 0.70, 0.67),
        "fall": planted(-sign * 0.05),
        "by_strength": row(0.6, 0.8),
        "strength": planted(sign * 0.2),
        "unsure": row(0.3, 0.4),
        "growth": planted(sign * 0.1),
        "people": row(0.72, 0.77),
        "of_three": planted(sign * 0.05, 0.02),
    }
