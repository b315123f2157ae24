"""C12: choosing what is labelled helps (future work of Ziegler et al. 2019)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, draw_bound, label_axes, new_chart
from rlhf_dagster.replication.claims.arms import CHOOSING, NEW_PAIRS, choosing
from rlhf_dagster.replication.claims.figures import along, in_percent, in_points, planted
from rlhf_dagster.replication.estimates.differences import paired_difference_of_shares
from rlhf_dagster.replication.measures.preferences import share_of_wins
from rlhf_dagster.replication.verdicts import must_exceed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED_WAY = "disagreement"
"""The choice that the claim stands or falls with."""


class ChoosingComparisons:
    name = "C12"
    title = "Choosing what to label helps"
    source = "Ziegler et al. 2019, section 4.4 (future work)"
    paper = "No figure: active learning is named as a way to need fewer labels."
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return tuple(map(choosing, CHOOSING))

    def measure(self, results: Results, size: Size) -> Measured:
        right = [_right(results, choosing(selection)) for selection in CHOOSING]
        gains = [paired_difference_of_shares(chosen, right[0]) for chosen in right[1:]]
        return {
            "choices": list(CHOOSING),
            "accuracy": [share_of_wins(found).as_dict() for found in right],
            "gains": [gain.as_dict() for gain in gains],
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        # Not by margin, which also likes comparisons that nobody can decide.
        gain = along(figures, "gains")[CHOOSING.index(JUDGED_WAY) - 1]
        return (must_exceed(f"Choice by {JUDGED_WAY} makes a more accurate reward model", gain, 0.0, percent=True),)

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        draw_bars(panel, figures[0]["choices"], along(figures, "accuracy"))
        draw_bound(panel, 0.5)
        label_axes(panel, "Accuracy of the reward model on the same pairs", "how comparisons were chosen", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        by_chance = in_percent(along(figures, "accuracy")[0])
        gains = zip(CHOOSING[1:], along(figures, "gains"), strict=True)
        told = " and ".join(f"{in_points(gain)} by {name}" for name, gain in gains)
        return f"Chosen by chance, labels make a reward model of {by_chance} accuracy; chosen otherwise {told}."

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(0.03)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(-0.03)]


def _right(results: Results, variant: Variant) -> np.ndarray:
    """1 for each pair on which the reward model agrees with the gold judge, on SFT's responses."""
    found = results.probe(variant, NEW_PAIRS.name)
    return np.array(found["rounds"][0]["agrees_with_gold"], dtype=np.float64)


def _made_up(gain: float) -> Measured:
    return {
        "choices": list(CHOOSING),
        "accuracy": [planted(0.74), planted(0.74 + gain), planted(0.74 + gain)],
        "gains": [planted(gain, 0.01), planted(gain, 0.01)],
    }
