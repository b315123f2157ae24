"""C2: supervised learning and RL together are best, and RL alone is worse by ROUGE (Ziegler et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_dagster.common.intervals import mean_interval
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, draw_bound, label_axes, new_chart
from rlhf_dagster.replication.claims.figures import in_digits, in_percent, planted
from rlhf_dagster.replication.claims.summary_arms import (
    BOTH,
    FOUR,
    HEURISTIC,
    RL,
    SUPERVISED,
    UNTRAINED,
    four_policies,
    prepared,
    rl_alone,
    sft_and_rl,
)
from rlhf_dagster.replication.estimates.differences import paired_difference
from rlhf_dagster.replication.measures.overlap import rouge_average
from rlhf_dagster.replication.measures.preferences import annotator_wins, gold_wins, share_of_wins
from rlhf_dagster.replication.verdicts import across_seeds, must_be_preferred, must_exceed, must_stay_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SupervisedStart:
    name = "C2"
    title = "Supervised learning and RL together are best; RL alone is worse than supervised by ROUGE"
    source = "Ziegler et al. 2019, section 3.2"
    paper = (
        "By ROUGE, RL alone is below the supervised model, and RL that begins from the supervised model is above it; "
        "people prefer what RL has made."
    )
    seeds_for_one = 4

    def variants(self, size: Size) -> Sequence[Variant]:
        return (prepared(size), rl_alone(size), sft_and_rl(size))

    def measure(self, results: Results, size: Size) -> Measured:
        policies = four_policies(results, size)
        overlap = {name: rouge_average(answers) for name, answers in policies.items()}
        people = {name: annotator_wins(policies[name], policies[SUPERVISED], HEURISTIC) for name in FOUR}
        return {
            "rouge": {name: mean_interval(scores).as_dict() for name, scores in overlap.items()},
            "over_sft": {name: share_of_wins(wins).as_dict() for name, wins in people.items() if name != SUPERVISED},
            "rouge_gain": {name: _gain(overlap, name) for name in FOUR if name != SUPERVISED},
            "both_over_rl": share_of_wins(gold_wins(policies[BOTH], policies[RL])).as_dict(),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        alone, both = (across_seeds(figures, "rouge_gain", name) for name in (RL, BOTH))
        preferred, better = across_seeds(figures, "over_sft", BOTH), across_seeds(figures, "both_over_rl")
        return (
            must_stay_below("RL alone is below SFT by ROUGE", alone, 0.0),
            must_exceed("RL that begins from SFT is above SFT by ROUGE", both, 0.0),
            must_be_preferred("The people who label prefer it to SFT", preferred),
            must_be_preferred("The gold judge prefers it to RL alone", better),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (overlap, people) = new_chart(2)
        draw_bars(overlap, FOUR, [across_seeds(figures, "rouge", name) for name in FOUR])
        label_axes(overlap, "ROUGE (mean of 1, 2 and L)")
        others = [name for name in FOUR if name != SUPERVISED]
        draw_bars(people, others, [across_seeds(figures, "over_sft", name) for name in others])
        draw_bound(people, 0.5)
        label_axes(people, "Preferred to SFT by those who label", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        alone, both = (across_seeds(figures, "rouge_gain", name) for name in (RL, BOTH))
        preferred = across_seeds(figures, "over_sft", BOTH)
        return (
            f"By ROUGE, RL alone is {in_digits(alone)} against SFT and SFT with RL {in_digits(both)}; the people who "
            f"label prefer SFT with RL to SFT on {in_percent(preferred)} of posts."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(alone=-0.2, both=0.05, preferred=0.65, over_rl=0.9)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(alone=0.1, both=-0.05, preferred=0.4, over_rl=0.4)]


def _gain(overlap: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    return paired_difference(overlap[name], overlap[SUPERVISED]).as_dict()


def _made_up(alone: float, both: float, preferred: float, over_rl: float) -> Measured:
    return {
        "rouge": {name: planted(0.6) for name in FOUR},
        "over_sft": {UNTRAINED: planted(0.3), RL: planted(0.7), BOTH: planted(preferred)},
        "rouge_gain": {UNTRAINED: planted(-0.2), RL: planted(alone, 0.02), BOTH: planted(both, 0.02)},
        "both_over_rl": planted(over_rl),
    }
