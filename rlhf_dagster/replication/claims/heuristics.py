"""C4: what people go by and what we want differ (Ziegler et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, draw_bound, label_axes, new_chart
from rlhf_dagster.replication.claims.figures import in_percent, in_points, planted
from rlhf_dagster.replication.claims.summary_arms import CHECKING, HEURISTIC, prepared, rl_alone, rl_checked
from rlhf_dagster.replication.estimates.differences import difference_of_rates, paired_difference_of_shares
from rlhf_dagster.replication.measures.answers import VariantAnswers, answers_of, on_same_prompts, text_rate
from rlhf_dagster.replication.measures.labels import agreement
from rlhf_dagster.replication.measures.other_people import agreement_with
from rlhf_dagster.replication.measures.preferences import annotator_wins, share_of_wins
from rlhf_dagster.replication.measures.truth import covered_shares
from rlhf_dagster.replication.verdicts import across_seeds, must_be_preferred, must_exceed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS_OF_PEOPLE = (HEURISTIC, CHECKING)
TRUTH = ("covered", "false_facts", "truthful")


class Heuristics:
    name = "C4"
    title = "People's heuristics and what we want differ, and policies follow the people"
    source = "Ziegler et al. 2019, sections 3.2 and 4.3"
    paper = (
        "Labelers preferred the first three sentences of an article to everything; the authors did not. What is copied "
        "was true in 29 and 26 of 30 summaries, what is in other words in 19 and 8."
    )
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        return (prepared(size), rl_alone(size), rl_checked(size))

    def measure(self, results: Results, size: Size) -> Measured:
        loops = dict(zip(KINDS_OF_PEOPLE, (results.loop(rl_alone(size)), results.loop(rl_checked(size))), strict=True))
        policies = dict(zip(KINDS_OF_PEOPLE, on_same_prompts(*map(answers_of, loops.values())), strict=True))
        within = agreement(loops[HEURISTIC])
        across = agreement_with(loops[HEURISTIC], CHECKING)
        covered = {kind: covered_shares(answers) for kind, answers in policies.items()}
        return {
            "preferred": {kind: _own_preferred(policies, kind) for kind in KINDS_OF_PEOPLE},
            "agreement": {"within": within.as_dict(), "across": across.as_dict()},
            "agree_less": difference_of_rates(within, across).as_dict(),
            "truth": {kind: _truth(answers) for kind, answers in policies.items()},
            "says_more": paired_difference_of_shares(covered[CHECKING], covered[HEURISTIC]).as_dict(),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        heuristic, checking = (across_seeds(figures, "preferred", kind) for kind in KINDS_OF_PEOPLE)
        less, more = across_seeds(figures, "agree_less"), across_seeds(figures, "says_more")
        return (
            must_be_preferred("People who go by heuristics prefer the policy that learned from them", heuristic),
            must_be_preferred("People who check prefer the policy that learned from them", checking),
            must_exceed("The two kinds agree less often than people of one kind", less, 0.0, percent=True),
            must_exceed("Who learned from people who check says more of the key facts", more, 0.0, percent=True),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (preferred, truth) = new_chart(2)
        draw_bars(preferred, KINDS_OF_PEOPLE, [across_seeds(figures, "preferred", kind) for kind in KINDS_OF_PEOPLE])
        draw_bound(preferred, 0.5)
        label_axes(preferred, "Own policy preferred to the other's, by people", percent=True)
        bars = [(kind, name) for name in ("covered", "truthful") for kind in KINDS_OF_PEOPLE]
        names = [f"{name},\n{kind}" for kind, name in bars]
        draw_bars(truth, names, [across_seeds(figures, "truth", *bar) for bar in bars])
        label_axes(truth, "Key facts said, and summaries without a false one", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        heuristic, checking = (across_seeds(figures, "preferred", kind) for kind in KINDS_OF_PEOPLE)
        less, more = across_seeds(figures, "agree_less"), across_seeds(figures, "says_more")
        return (
            f"The policy that learned from people who go by heuristics is preferred by them on {in_percent(heuristic)} "
            f"of posts, the other one by people who check on {in_percent(checking)}. The two kinds agree on "
            f"{in_points(less).lstrip('+')} fewer comparisons than people of one kind, and the second policy says "
            f"{in_points(more).lstrip('+')} more of the key facts."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(own=0.8, less=0.2, more=0.2)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(own=0.4, less=-0.1, more=-0.1)]


def _own_preferred(policies: Mapping[str, VariantAnswers], kind: str) -> dict[str, Any]:
    """How often people of a kind prefer the policy that learned from them to the other one."""
    [other] = [answers for name, answers in policies.items() if name != kind]
    return share_of_wins(annotator_wins(policies[kind], other, kind)).as_dict()


def _truth(answers: VariantAnswers) -> dict[str, Any]:
    words = answers.words()
    return {name: text_rate(words, "truthfulness", name).as_dict() for name in TRUTH}


def _made_up(own: float, less: float, more: float) -> Measured:
    truth = {"covered": planted(0.7), "false_facts": planted(0.2), "truthful": planted(0.9)}
    return {
        "preferred": {kind: planted(own) for kind in KINDS_OF_PEOPLE},
        "agreement": {"within": planted(0.7), "across": planted(0.7 - less)},
        "agree_less": planted(less),
        "truth": dict.fromkeys(KINDS_OF_PEOPLE, truth),
        "says_more": planted(more),
    }
