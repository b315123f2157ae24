"""C8: people prefer a small model that is aligned to a large one that is not (InstructGPT)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_dagster.evaluation.win_rate import SFT
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, draw_bound, label_axes, new_chart
from rlhf_dagster.replication.claims.arms import PREPARED, SMALL_MODEL, SOME_COMPARISONS, labelled, zero_shot_answers
from rlhf_dagster.replication.claims.figures import along, in_percent, planted
from rlhf_dagster.replication.measures.answers import answers_of
from rlhf_dagster.replication.measures.preferences import gold_wins, share_of_wins
from rlhf_dagster.replication.measures.rounds import round_figures
from rlhf_dagster.replication.verdicts import across_seeds, must_be_preferred

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIMES = 10
"""By how much the large model must be larger."""
OPPONENTS = ("large zero-shot", "large SFT", "large PPO")


class SmallAlignedModel:
    name = "C8"
    title = "A small aligned model is preferred to a large one that is not"
    source = "InstructGPT (Ouyang et al. 2022), section 4.1"
    paper = "People prefer the 1.3-billion InstructGPT to the 175-billion GPT-3, which has a hundred times its weights."
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (PREPARED, labelled(SOME_COMPARISONS), SMALL_MODEL)

    def measure(self, results: Results, size: Size) -> Measured:
        small, large = results.loop(SMALL_MODEL), results.loop(labelled(SOME_COMPARISONS))
        opponents = (zero_shot_answers(results), answers_of(large, SFT), answers_of(large))
        own, sizes = answers_of(small), [_parameters(loop) for loop in (small, large)]
        return {
            "parameters": sizes,
            "times": sizes[1] / sizes[0],
            "over": [share_of_wins(gold_wins(own, other)).as_dict() for other in opponents],
            "perplexity": [_perplexity(loop) for loop in (small, large)],
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        larger = min(one["times"] for one in figures)
        if larger < TIMES:
            raise ValueError(f"the large model has {larger:.1f} times the small one's weights, and not {TIMES}")
        rate = across_seeds(figures, "over", 0)
        sentence = f"The small policy is preferred to a zero-shot model of {larger:.0f} times its size"
        return (must_be_preferred(sentence, rate),)

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        draw_bars(panel, [name.replace(" ", "\n") for name in OPPONENTS], along(figures, "over"))
        draw_bound(panel, 0.5)
        label_axes(panel, "Win rate of the small policy over", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        small, large = figures[0]["parameters"]
        by_size = figures[0]["perplexity"]
        return (
            f"The gold judge prefers the policy of {small:,} parameters to the zero-shot model of {large:,} on "
            f"{in_percent(across_seeds(figures, 'over', 0))} of prompts, although the large one reads text better "
            f"(perplexity {by_size[1]:.2f} against {by_size[0]:.2f} after SFT)."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(0.7)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(0.4)]


def _parameters(loop: LoopFolder) -> int:
    base = loop.checkpoint("base_model")
    if base is None:
        raise ValueError(f"{loop.root} has no base model")
    return int(read_manifest(base.folder)["metrics"]["parameters"])


def _perplexity(loop: LoopFolder) -> float:
    """Of SFT on held-out pretraining text, which is the same for every size."""
    tax: Mapping[str, Any] = round_figures(loop, "eval_report")["alignment_tax"]
    return float(tax["sft"])


def _made_up(over_zero_shot: float) -> Measured:
    return {
        "parameters": [41_000, 460_000],
        "times": 11.2,
        "over": [planted(over_zero_shot), planted(0.6), planted(0.3)],
        "perplexity": [3.6, 2.9],
    }
