"""What is asked to learn about the annotators, not about the responses: gold questions, repeats, drift guards."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlhf_dagster.labeling.quality.position import shown_order
from rlhf_dagster.records.outcome import best
from rlhf_dagster.records.tables import records

MEASURING_ROLES = ("gold", "repeat", "drift")
"""Comparisons that measure annotators; nothing is learned from them, and they are no part of the agreement."""
ALL = ""
"""Stands for everybody in a :class:`Tally` by annotator."""


@dataclass
class Tally:
    """How often something is so: in ``so`` of ``n`` cases."""

    n: int = 0
    so: int = 0

    def add(self, so: bool) -> None:
        self.n += 1
        self.so += so


_NEEDED = ["comparison_id", "role", "gold_ranks", "repeat_of", "policy_ids", "display_order"]

Tallies = Mapping[str, Tally]
Rows = Mapping[str, Mapping[str, Any]]
"""Rows of COMPARISONS by id."""


def asked_to_learn(comparisons: pd.DataFrame, usable: pd.DataFrame) -> Rows:
    """What figures of annotators need of the comparisons that say something about them; of most rounds these are few.

    That are gold questions, repeats and what they repeat, drift guards, and rankings, whose order was shown.
    """
    again = comparisons["repeat_of"].fillna("") != ""
    first = comparisons["comparison_id"].isin(comparisons.loc[again, "repeat_of"])
    ranked = comparisons["comparison_id"].isin(usable.loc[usable["kind"] == "ranking", "comparison_id"])
    kept = comparisons["gold_ranks"].notna() | again | first | ranked | (comparisons["role"] == "drift")
    return {row["comparison_id"]: row for row in records(comparisons.loc[kept, _NEEDED])}


def gold_answers(usable: pd.DataFrame, comparisons: Rows) -> Tallies:
    """By annotator and in all: of gold questions answered, those whose best response is among the known best.

    An answer that ties the right response with a wrong one is not right.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    for label in records(usable):
        gold = comparisons[label["comparison_id"]]["gold_ranks"]
        if _is_list(gold):
            right = set(best(label["ranks"])) <= set(best(gold))
            for name in (label["annotator"], ALL):
                tallies[name].add(right)
    return tallies


def repeated_answers(usable: pd.DataFrame, comparisons: Rows) -> Tallies:
    """By annotator and in all: of comparisons that a person judged twice, those with the same best responses.

    The second time is a repeat, or the same comparison with the responses in the other order.
    """
    answers = {(row["comparison_id"], row["annotator"]): row["ranks"] for row in records(usable)}
    tallies: dict[str, Tally] = defaultdict(Tally)
    for (comparison, annotator), ranks in answers.items():
        first = answers.get((comparisons[comparison]["repeat_of"] or "", annotator))
        if first is not None:
            for name in (annotator, ALL):
                tallies[name].add(best(first) == best(ranks))
    return tallies


def untouched_rankings(usable: pd.DataFrame, comparisons: Rows) -> Tallies:
    """By annotator and in all: of rankings without ties, those that leave the responses in the order shown to them.

    By chance that is one in K!; more says that somebody submits what is on the screen.
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    for label in records(usable[usable["kind"] == "ranking"]):
        order, ranks = shown_order(label, comparisons[label["comparison_id"]]), label["ranks"]
        if order is not None and len(set(ranks)) == len(ranks):
            untouched = [ranks[index] for index in order] == list(range(1, len(ranks) + 1))
            for name in (label["annotator"], ALL):
                tallies[name].add(untouched)
    return tallies


def drift_answers(usable: pd.DataFrame, comparisons: Rows, reference: str) -> Tally:
    """Of decided drift guards, those that prefer the response whose policy id is ``reference``."""
    tally = Tally()
    for label in records(usable):
        comparison, chosen = comparisons[label["comparison_id"]], best(label["ranks"])
        if comparison["role"] == "drift" and len(chosen) == 1:
            tally.add(comparison["policy_ids"][chosen[0]] == reference)
    return tally


def _is_list(value: Any) -> bool:
    return value is not None and not isinstance(value, float)
