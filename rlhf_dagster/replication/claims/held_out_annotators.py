"""C9: a reward model generalises to annotators who gave no label (InstructGPT)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, draw_bound, label_axes, new_chart
from rlhf_dagster.replication.claims.arms import FOLDS, MANY_COMPARISONS, labelled
from rlhf_dagster.replication.claims.figures import in_percent, in_points, planted
from rlhf_dagster.replication.verdicts import across_seeds, must_exceed, must_stay_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANCE = 0.25
"""Of a choice among four responses."""
SMALL_GAP = 0.05
"""The loss of accuracy must stay below this; the paper's is 0.028, from 72.4 to 69.6%."""


class HeldOutAnnotators:
    name = "C9"
    title = "A reward model generalises to annotators who gave no label"
    source = "InstructGPT (Ouyang et al. 2022), section 4.1"
    paper = (
        "Reward models of five folds by annotator agree with 69.6 ± 0.9% of the labels of the people held out, and "
        "with 72.4 ± 0.4% of those of the people they learned from."
    )
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (labelled(MANY_COMPARISONS),)

    def measure(self, results: Results, size: Size) -> Measured:
        found: Measured = results.probe(labelled(MANY_COMPARISONS), FOLDS.name)
        return found

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        held_out, gap = (across_seeds(figures, name) for name in ("held_out", "gap"))
        return (
            must_exceed(
                "Labels of people held out are predicted better than by chance", held_out, CHANCE, percent=True
            ),
            must_stay_below("Accuracy loses little on people held out", gap, SMALL_GAP, percent=True),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        rates = [across_seeds(figures, name) for name in ("own", "held_out")]
        draw_bars(panel, ["people\nlearned from", "people\nheld out"], rates)
        draw_bound(panel, CHANCE)
        label_axes(panel, "Accuracy of the reward model on labels of", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        own, held_out, gap = (across_seeds(figures, name) for name in ("own", "held_out", "gap"))
        return (
            f"Of the labels of people held out, reward models predict {in_percent(held_out)}, of those they learned "
            f"from {in_percent(own)}: a difference of {in_points(gap)} on the same comparisons."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(0.58, 0.56)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(0.58, 0.40)]


def _made_up(own: float, held_out: float) -> Measured:
    return {"own": planted(own), "held_out": planted(held_out), "gap": planted(own - held_out, 0.01)}
