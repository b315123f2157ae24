"""C5: an ambiguous task makes labels noisy (Ziegler et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, label_axes, new_chart
from rlhf_dagster.replication.claims.figures import in_points, planted
from rlhf_dagster.replication.estimates.differences import difference_of_rates
from rlhf_dagster.replication.measures.labels import agreement
from rlhf_dagster.replication.measures.reports import accuracy_of
from rlhf_dagster.replication.verdicts import across_seeds, must_exceed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DESCRIPTIVE_TASK = "descriptive"
CLEAR_INSTRUCTIONS, VAGUE_INSTRUCTIONS = INSTRUCTIONS = ("clear", "vague")
DESCRIPTIONS_COMPARED: Mapping[Size, int] = {"quick": 1500, "full": 5000}
LAST_ASSET = "reward_model_accuracy"


class VagueInstructions:
    name = "C5"
    title = "Ambiguous tasks make labels noisy"
    source = "Ziegler et al. 2019, section 4.3"
    paper = (
        "What makes a summary good is hard to say, and labels of summaries were inconsistent; the paper tells of it, "
        "and has no experiment."
    )
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (_told(CLEAR_INSTRUCTIONS, size), _told(VAGUE_INSTRUCTIONS, size))

    def measure(self, results: Results, size: Size) -> Measured:
        loops = {kind: results.loop(_told(kind, size)) for kind in INSTRUCTIONS}
        agreed = {kind: agreement(loop) for kind, loop in loops.items()}
        accurate = {kind: accuracy_of(loop, "validation") for kind, loop in loops.items()}
        return {
            "agreement": {kind: rate.as_dict() for kind, rate in agreed.items()},
            "accuracy": {kind: rate.as_dict() for kind, rate in accurate.items()},
            "agree_more": difference_of_rates(agreed[CLEAR_INSTRUCTIONS], agreed[VAGUE_INSTRUCTIONS]).as_dict(),
            "predict_more": difference_of_rates(accurate[CLEAR_INSTRUCTIONS], accurate[VAGUE_INSTRUCTIONS]).as_dict(),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        agree, predict = across_seeds(figures, "agree_more"), across_seeds(figures, "predict_more")
        return (
            must_exceed("With clear instructions people agree more often", agree, 0.0, percent=True),
            must_exceed("The reward model predicts their labels more often", predict, 0.0, percent=True),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, panels = new_chart(2)
        titles = {"agreement": "Two people name the same best", "accuracy": "The reward model names it too"}
        for panel, (name, title) in zip(panels, titles.items(), strict=True):
            draw_bars(panel, INSTRUCTIONS, [across_seeds(figures, name, kind) for kind in INSTRUCTIONS])
            label_axes(panel, title, "instructions", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        agree, predict = across_seeds(figures, "agree_more"), across_seeds(figures, "predict_more")
        return (
            f"With clear instructions, people agree on {in_points(agree)} more comparisons, and the reward model "
            f"predicts {in_points(predict)} more of their labels."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(agree=0.2, predict=0.15)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(agree=-0.1, predict=-0.1)]


def _told(kind: str, size: Size) -> Variant:
    """A round of labels by people with clear or vague instructions, on the same samples, and a reward model."""
    settings: dict[str, Any] = {
        # Three people judge a third of the comparisons, from which agreement is measured.
        "labeling": {"comparisons_per_round": DESCRIPTIONS_COMPARED[size], "overlap": 0.33, "validation": 0.2},
        "reward_model": {"accept_chance": True},
        "evaluation": {"human_judgments": 0},
    }
    settings = overlaid(settings, {"data": {"annotator_kind": kind}})
    forks = None if kind == CLEAR_INSTRUCTIONS else _told(CLEAR_INSTRUCTIONS, size)
    name = f"{DESCRIPTIVE_TASK}-{DESCRIPTIONS_COMPARED[size]}-{kind}"
    return Variant(
        name, DESCRIPTIVE_TASK, settings, until=LAST_ASSET, forks=forks, after="" if forks is None else "completions"
    )


def _made_up(agree: float, predict: float) -> Measured:
    return {
        "agreement": {CLEAR_INSTRUCTIONS: planted(0.6 + agree), VAGUE_INSTRUCTIONS: planted(0.6)},
        "accuracy": {CLEAR_INSTRUCTIONS: planted(0.6 + predict), VAGUE_INSTRUCTIONS: planted(0.6)},
        "agree_more": planted(agree),
        "predict_more": planted(predict),
    }
