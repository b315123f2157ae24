"""C7: labels of the policy's own responses are worth more than as many labels of the first policy's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_dagster.evaluation.win_rate import SFT
from rlhf_dagster.records.round_keys import round_key
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, draw_bound, label_axes, new_chart
from rlhf_dagster.replication.claims.arms import ONLINE_ROUNDS, offline, online
from rlhf_dagster.replication.claims.figures import along, in_digits, in_percent, planted
from rlhf_dagster.replication.measures.answers import answers_of
from rlhf_dagster.replication.measures.preferences import gold_wins, share_of_wins
from rlhf_dagster.replication.verdicts import across_seeds, must_be_preferred

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OnlineLabels:
    name = "C7"
    title = "Labels of the policy's own responses beat as many of the first policy's"
    source = "Ziegler et al. 2019, section 3.3; Bai et al. 2022, figure 16"
    paper = (
        "At equal numbers of labels, people clearly prefer the policy of several rounds, each about the responses of "
        "the newest policy, to that of one round (Bai et al.: 44,000 comparisons either way)."
    )
    seeds_for_one = 4

    def variants(self, size: Size) -> Sequence[Variant]:
        return (offline(size), online(size))

    def measure(self, results: Results, size: Size) -> Measured:
        at_once, in_rounds = (results.loop(variant) for variant in self.variants(size))
        policies = answers_of(at_once), answers_of(in_rounds)
        sft = answers_of(at_once, SFT)
        rounds = [answers_of(in_rounds, round_key=round_key(number + 1)) for number in range(ONLINE_ROUNDS)]
        return {
            "online_over_offline": share_of_wins(gold_wins(policies[1], policies[0])).as_dict(),
            "over_sft": [share_of_wins(gold_wins(policy, sft)).as_dict() for policy in policies],
            "kl": [policy.kl().as_dict() for policy in policies],
            "by_round": [share_of_wins(gold_wins(policy, sft)).as_dict() for policy in rounds],
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        rate = across_seeds(figures, "online_over_offline")
        return (must_be_preferred("The policy of several rounds is preferred to that of one round", rate),)

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        rounds = along(figures, "by_round")
        names = ["one round", *(f"online, round {number + 1}" for number in range(len(rounds)))]
        draw_bars(panel, [name.replace(", ", ",\n") for name in names], [along(figures, "over_sft")[0], *rounds])
        draw_bound(panel, 0.5)
        label_axes(panel, "Win rate over SFT by the gold judge", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        at_once, in_rounds = along(figures, "kl")
        return (
            f"The gold judge prefers the policy of {ONLINE_ROUNDS} rounds to that of one on "
            f"{in_percent(across_seeds(figures, 'online_over_offline'))} of prompts, at {in_digits(in_rounds)} and "
            f"{in_digits(at_once)} nats of KL."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(0.6)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(0.42)]


def _made_up(online_over_offline: float) -> Measured:
    return {
        "online_over_offline": planted(online_over_offline),
        "over_sft": [planted(0.8), planted(0.85)],
        "kl": [planted(14.0, 0.5), planted(13.5, 0.5)],
        "by_round": list(map(planted, (0.6, 0.7, 0.8, 0.85))),
    }
