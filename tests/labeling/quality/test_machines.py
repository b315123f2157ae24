"""Machines that label are compared with people, and are in no figure of theirs."""

from typing import Any

import pandas as pd
import pytest
from label_tables import tables

from rlhf_dagster.labeling.quality.label_quality import estimated_competence, measure_quality

PEOPLE = [
    ("c1", "a", 0, 4.0),
    ("c1", "b", 0, 6.0),
    ("c2", "a", 1, 6.0),
    ("c2", "b", 0, 6.0),
    ("c3", "a", (0, 1), 9.0),
    ("c4", "a", 1, 9.0),
]
MACHINES: list[tuple[Any, ...]] = [
    ("c1", "machine:x", 0, None),
    ("c2", "machine:x", 1, None),
    ("c3", "machine:x", 1, None),
    ("c4", "machine:x", (0, 1), None),
    ("c4", "machine:y", 0, None),
]


def measured(judgments: list[tuple[Any, ...]]) -> tuple[pd.DataFrame, dict[str, Any]]:
    labels, comparisons = tables(judgments)
    return measure_quality(labels, comparisons.assign(role="label"))


def test_machines_are_in_no_figure_of_people() -> None:
    alone, beside = measured(PEOPLE), measured(PEOPLE + MACHINES)
    pd.testing.assert_frame_equal(beside[0], alone[0])
    assert beside[1] | {"machines": []} == alone[1]
    labels, comparisons = tables(PEOPLE + MACHINES)
    assert set(estimated_competence(labels, comparisons)) == {"a", "b"}


def test_machines_are_compared_with_people() -> None:
    x, y = measured(PEOPLE + MACHINES)[1]["machines"]
    assert (x["annotator"], x["labels"], x["undecided"]) == ("machine:x", 4, 1)
    # With a and b about c1, and with a about c2; b says otherwise there.
    assert (x["agreement"]["value"], x["agreement"]["n"]) == (3 / 4, 4)
    assert x["agreement"]["low"] < 3 / 4 < x["agreement"]["high"]
    assert (x["first_position"]["value"], x["first_position"]["chance"]) == (pytest.approx(1 / 3), 0.5)
    assert (y["agreement"]["value"], y["agreement"]["n"], y["gold"]) == (0, 1, None)


def test_known_answers_and_what_only_measures() -> None:
    labels, comparisons = tables(PEOPLE + MACHINES)
    known = [[1, 2] if name == "c1" else None for name in comparisons["comparison_id"]]
    roles = ["gold" if name == "c1" else "label" for name in comparisons["comparison_id"]]
    x, _ = measure_quality(labels, comparisons.assign(role=roles, gold_ranks=known))[1]["machines"]
    assert (x["gold"]["value"], x["gold"]["n"]) == (1, 1)
    assert (x["agreement"]["value"], x["agreement"]["n"]) == (1 / 2, 2)


def test_machines_alone() -> None:
    quality, summary = measured(MACHINES)
    assert quality.empty
    assert (summary["labels"], summary["usable"], summary["annotators"], summary["agreement"]) == (0, 0, 0, None)
    assert [one["agreement"] for one in summary["machines"]] == [None, None]
