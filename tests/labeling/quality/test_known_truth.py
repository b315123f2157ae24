"""Figures of labels whose truth is known: three annotators with ties, rankings with repeats, two orders."""

from typing import Any

import numpy as np
import pandas as pd
from label_simulations import comparison_of, frames, label_row, ranked

from rlhf_dagster.labeling.quality.agreement import agreement_of
from rlhf_dagster.labeling.quality.label_quality import measure_quality


def holds(found: dict[str, Any], truth: float) -> bool:
    return bool(found["low"] <= truth <= found["high"])


def three_annotators(comparisons: int, right: float, tie: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Three people who each say the better response with probability ``right``, or that it is a tie."""
    generator = np.random.default_rng(1)
    rows = []
    for number in range(comparisons):
        for name in "abc":
            drawn = generator.random()
            ranks = [1, 1] if drawn < tie else [1, 2] if drawn < tie + right else [2, 1]
            rows.append(label_row(len(rows), f"c{number:04}", name, ranks, seconds=5.0))
    return frames(rows, [comparison_of(f"c{number:04}") for number in range(comparisons)])


def test_agreement_with_and_without_ties() -> None:
    summary = measure_quality(*three_annotators(600, right=0.7, tie=0.1))[1]
    wrong = 0.2
    assert holds(summary["agreement"], (0.7**2 + wrong**2) / 0.9**2)
    assert holds(summary["agreement_with_ties"], 0.7**2 + wrong**2 + 0.1**2)
    assert summary["agreement_with_ties"]["n"] == 1800
    assert summary["ties"] == summary["undecided"] > 100
    assert summary["cannot_decide"] == 0


def test_a_tie_is_not_cannot_decide() -> None:
    rows = [label_row(0, "c1", "a", [1, 1]), label_row(1, "c1", "b", None), label_row(2, "c1", "c", [1, 1])]
    quality, summary = measure_quality(*frames(rows, [comparison_of("c1")]))
    assert (summary["ties"], summary["cannot_decide"], summary["undecided"]) == (2, 1, 3)
    assert (summary["agreement"], summary["agreement_with_ties"]["value"]) == (None, 1.0)
    assert dict(zip(quality["annotator"], quality["share_tied"], strict=True)) == {"a": 1.0, "b": 0.0, "c": 1.0}


def test_the_interval_of_agreement_allows_for_labels_that_are_shared() -> None:
    """Coverage over simulations, where every comparison has six labels and so fifteen pairs."""
    generator, hits, simulations = np.random.default_rng(0), 0, 100
    for _ in range(simulations):
        votes = generator.random((100, 6)) < 0.8
        rows = [
            label_row(number * 6 + person, f"c{number}", str(person), [1, 2] if vote else [2, 1])
            for number, given in enumerate(votes)
            for person, vote in enumerate(given)
        ]
        labels = pd.DataFrame(rows)[["comparison_id", "annotator", "ranks"]]
        hits += holds(everybodys_agreement(labels), 0.8**2 + 0.2**2)
    assert hits / simulations > 0.88


def everybodys_agreement(labels: pd.DataFrame) -> dict[str, Any]:
    found = agreement_of(labels.assign(top=[(0,) if ranks[0] == 1 else (1,) for ranks in labels["ranks"]])).everybody
    assert found is not None
    return dict(found)


def test_two_hundred_judges_who_rank_five_and_repeat_some() -> None:
    generator, rows, asked = np.random.default_rng(2), [], []
    first_again = 0.75
    for number in range(600):
        judge, order = f"judge {number % 200}", generator.permutation(5)
        ranks = ranked(generator, np.zeros((1, 5)))[0]
        asked.append(comparison_of(f"c{number}", 5, kind="ranking"))
        rows.append(shown(len(rows), f"c{number}", judge, ranks, order))
        if number % 2:
            asked.append(comparison_of(f"r{number}", 5, kind="ranking", repeat_of=f"c{number}"))
            again = ranks if generator.random() < first_again else np.roll(ranks, 1)
            rows.append(shown(len(rows), f"r{number}", judge, again, generator.permutation(5)))
    summary = measure_quality(*frames(rows, asked))[1]
    assert holds(summary["consistency"], first_again)
    assert summary["consistency"]["n"] == 300
    # Nobody looks at the place, and everybody has seen an order of their own.
    assert holds(summary["first_position"], 0.2)
    assert holds(summary["untouched_rankings"], 1 / 120)


def shown(number: int, comparison: str, judge: str, ranks: np.ndarray, order: np.ndarray) -> dict[str, Any]:
    """A ranking of responses that this judge saw in ``order``."""
    place = int(np.argwhere(order == int(np.argmin(ranks)))[0, 0])
    own = {"display_order": order.tolist(), "chosen_position": place}
    return label_row(number, comparison, judge, ranks.tolist(), kind="ranking", **own)


def test_rankings_left_untouched_are_told_from_the_order_that_each_saw() -> None:
    rows = [shown(n, f"c{n}", "lazy", np.array([3, 1, 2]), np.array([1, 2, 0])) for n in range(8)]
    rows += [label_row(90 + n, f"c{n}", "unknown", [1, 2, 3], kind="ranking", display_order=[]) for n in range(8)]
    summary = measure_quality(*frames(rows, [comparison_of(f"c{n}", 3, kind="ranking") for n in range(8)]))[1]
    assert (summary["untouched_rankings"]["value"], summary["untouched_rankings"]["n"]) == (1.0, 8)


def test_two_orders_tell_a_preference_for_a_place_from_one_for_a_response() -> None:
    """Everybody prefers response 0 in 80%; half of them see it second."""
    generator, rows = np.random.default_rng(3), []
    for number in range(1000):
        ranks = [1, 2] if generator.random() < 0.8 else [2, 1]
        order = [0, 1] if number % 2 else [1, 0]
        place = order.index(ranks.index(1))
        name = f"annotator {number // 2 % 4}"
        rows.append(label_row(number, f"c{number}", name, ranks, display_order=order, chosen_position=place))
    summary = measure_quality(*frames(rows, [comparison_of(f"c{number}") for number in range(1000)]))[1]
    assert holds(summary["first_position"], 0.5)
    assert summary["first_position"]["n"] == 1000
    assert summary["review"] == []
