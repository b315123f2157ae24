from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.labeling.parse import Problem, labels_table, parse, result_of, shown_ranks, usable_labels
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.lineage.ids import label_id
from rlhf_dagster.lineage.schemas import COMPARISONS, LABELS, QUARANTINE, table

TIME = datetime(2026, 1, 1, tzinfo=UTC)
COMPARISON = {
    "comparison_id": "c",
    "round": "round-0001",
    "kind": "best_of_k",
    "purpose": "train",
    "prompt_id": "p",
    "prompt": "prompt",
    "completion_ids": ["w", "x", "y", "z"],
    "responses": ["W", "X", "Y", "Z"],
    "policy_ids": ["a"] * 4,
    "display_order": [2, 0, 3, 1],
    "labels_wanted": 1,
    "project": "",
    "task_id": "",
}
PAIR = COMPARISON | {"comparison_id": "d", "kind": "pair", "display_order": [1, 0], "completion_ids": ["w", "x"]}
ANNOTATION = Annotation("a1", "c", "ann", 1, "submitted", {"best": 0}, 5.0, TIME, TIME)


def parsed(result: Any, comparison: dict = COMPARISON) -> Any:
    return parse(replace(ANNOTATION, result=result), comparison)


@pytest.mark.parametrize(
    ("comparison", "result", "ranks", "position"),
    [
        (COMPARISON, {"best": 0}, [2, 2, 1, 2], 0),  # completion 2 is shown at position 0
        (COMPARISON, {"best": 3}, [2, 1, 2, 2], 3),
        (COMPARISON, {"best": [0, 2]}, [2, 2, 1, 1], None),
        (COMPARISON, {"best": [1]}, [1, 2, 2, 2], 1),
        (COMPARISON, {"best": [0, 1, 2, 3]}, [1, 1, 1, 1], None),
        (COMPARISON, {"cannot_decide": True}, None, None),
        (PAIR, {"choice": 0}, [2, 1], 0),
        (PAIR, {"choice": 1}, [1, 2], 1),
        (PAIR, {"choice": "tie"}, [1, 1], None),
        (PAIR, {"cannot_decide": True}, None, None),
    ],
)
def test_forms_of_a_result(comparison: dict, result: dict, ranks: list[int] | None, position: int | None) -> None:
    row = parsed(result, comparison)
    assert (row["ranks"], row["chosen_position"]) == (ranks, position)
    assert set(row) == set(LABELS.names)


def test_a_label_keeps_what_the_annotator_added() -> None:
    row = parsed({"best": 1, "reason": "kinder", "strength": 0.5, "flags": ["rude"]})
    assert (row["reason"], row["strength"], row["flags"]) == ("kinder", 0.5, ["rude"])
    assert row["label_id"] == label_id("c", "ann", "a1", 1)


@pytest.mark.parametrize(
    ("comparison", "result", "part"),
    [
        (COMPARISON, {"best": 4}, "position 4 of 4"),
        (COMPARISON, {"best": -1}, "position -1 of 4"),
        (COMPARISON, {"best": True}, "true or false"),
        (COMPARISON, {"best": "0"}, "a text"),
        (COMPARISON, {"best": 1.0}, "a fraction"),
        (COMPARISON, {"best": None}, "nothing"),
        (COMPARISON, {"best": []}, "names no response"),
        (COMPARISON, {"best": [0, 0]}, "twice"),
        (COMPARISON, {"best": [0, [1]]}, "a list"),
        (COMPARISON, {"choice": 0}, "keys that a best_of_k comparison does not: choice"),
        (COMPARISON, {"best": 0, "worst": 1}, "worst"),
        (COMPARISON, {}, "either `best` or `cannot_decide`"),
        (COMPARISON, {"best": 0, "cannot_decide": True}, "either `best` or `cannot_decide`"),
        (COMPARISON, {"cannot_decide": False}, "only be true"),
        (COMPARISON, {"best": 0, "strength": 2}, "between 0 and 1"),
        (COMPARISON, {"best": 0, "strength": float("nan")}, "between 0 and 1"),
        (COMPARISON, {"best": 0, "flags": "rude"}, "list of texts"),
        (COMPARISON, {"best": 0, "reason": 7}, "`reason`"),
        (COMPARISON, [{"best": 0}], "a list, not an object"),
        (COMPARISON, None, "nothing, not an object"),
        (PAIR, {"choice": 2}, "position 2 of 2"),
        (PAIR, {"choice": "left"}, "a text"),
        (PAIR, {"choice": [0, 1]}, "a list"),
        (PAIR, {"best": 0}, "best"),
    ],
)
def test_what_cannot_be_read_has_a_reason(comparison: dict, result: Any, part: str) -> None:
    problem = parsed(result, comparison)
    assert isinstance(problem, Problem)
    assert part in problem.reason
    assert problem.reason.endswith(".")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["best", "choice", "reason", "x"]), inner),
    )
)
def test_anything_is_a_label_or_a_problem(result: Any) -> None:
    row = parsed(result)
    assert isinstance(row, Problem) or 1 in row["ranks"]


@given(st.sampled_from(["pair", "best_of_k"]), st.data())
def test_result_and_ranks_are_inverse(kind: str, data: st.DataObject) -> None:
    k = 2 if kind == "pair" else data.draw(st.integers(2, 9))
    chosen = data.draw(st.none() | st.sets(st.integers(0, k - 1), min_size=1))
    ranks = None if chosen is None else [1 if index in chosen else 2 for index in range(k)]
    assert shown_ranks(result_of(ranks, kind), kind, k) == ranks


def versions(*changes: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    annotations = [replace(ANNOTATION, version=n, **change) for n, change in enumerate(changes, start=1)]
    return labels_table(annotations, table([COMPARISON], COMPARISONS).to_pandas())


def test_only_the_last_version_counts() -> None:
    labels, quarantine = versions({"result": {"best": 0}}, {"result": {"best": 1}})
    assert list(labels["latest"]) == [False, True]
    assert [list(ranks) for ranks in usable_labels(labels)["ranks"]] == [[1, 2, 2, 2]]
    assert quarantine.empty
    assert list(quarantine.columns) == QUARANTINE.names


@pytest.mark.parametrize(
    "last", [{"status": "skipped", "result": {}}, {"status": "deleted", "result": {}}, {"result": {"best": 9}}]
)
def test_what_was_taken_back_does_not_count(last: dict) -> None:
    labels, _ = versions({"result": {"best": 0}}, last)
    assert not labels.loc[labels["version"] == 1, "latest"].any()
    assert usable_labels(labels).empty


def test_cannot_decide_is_kept_but_not_usable() -> None:
    labels, _ = versions({"result": {"cannot_decide": True}})
    assert len(labels) == 1
    assert usable_labels(labels).empty


def test_unknown_comparisons_and_statuses_go_to_quarantine() -> None:
    labels, quarantine = versions({"comparison_id": "other"}, {"status": "draft"})
    assert labels.empty
    assert list(quarantine["problem"]) == [
        "No such comparison was sent.",
        "The status is 'draft', not submitted, skipped or deleted.",
    ]
    assert list(quarantine["raw"]) == ['{"best": 0}'] * 2


def test_one_person_counts_once_for_a_comparison() -> None:
    later = replace(ANNOTATION, annotation_id="a2", result={"best": 1}, updated_at=TIME.replace(hour=1))
    labels, _ = labels_table([later, ANNOTATION], table([COMPARISON], COMPARISONS).to_pandas())
    assert list(usable_labels(labels)["annotation_id"]) == ["a2"]
