from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.parse import Problem, count_labels, labels_table, parse, usable_labels, written_labels
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.records.ids import label_id
from rlhf_dagster.records.schemas import COMPARISONS, LABELS, QUARANTINE, table

TIME = datetime(2026, 1, 1, tzinfo=UTC)
COMPARISON = {
    "comparison_id": "c",
    "round": "round-0001",
    "kind": "best_of_k",
    "purpose": "train",
    "role": "label",
    "prompt_id": "p",
    "prompt": "prompt",
    "completion_ids": ["w", "x", "y", "z"],
    "responses": ["W", "X", "Y", "Z"],
    "policy_ids": ["a"] * 4,
    "display_order": [2, 0, 3, 1],
    "gold_ranks": None,
    "repeat_of": "",
    "labels_wanted": 1,
    "project": "",
    "task_id": "",
}
PAIR = COMPARISON | {"comparison_id": "d", "kind": "pair", "display_order": [1, 0], "completion_ids": ["w", "x"]}
AB = PAIR | {"purpose": "evaluation"}
RANKING, RATING = COMPARISON | {"kind": "ranking"}, COMPARISON | {"kind": "rating"}
WRITING = (
    COMPARISON
    | {"kind": "demonstration", "purpose": "demonstrations"}
    | {name: [] for name in ("completion_ids", "responses", "policy_ids", "display_order")}
)
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
        (AB, {"choice": 0, "axes": {"helpful": 1, "honest": "tie"}}, [2, 1], 0),
        (RANKING, {"ranks": [1, 2, 2, 3]}, [2, 3, 1, 2], 0),
        (RANKING, {"ranks": [2, 1, 3, 1]}, [1, 1, 2, 3], None),
        (RANKING, {"cannot_decide": True}, None, None),
        (RATING, {"ratings": {"overall": [7, 1, 7, 3]}}, [3, 2, 1, 1], None),
        (RATING, {"cannot_decide": True}, None, None),
        (WRITING, {"text": "Four."}, None, None),
    ],
)
def test_forms_of_a_result(comparison: dict, result: dict, ranks: list[int] | None, position: int | None) -> None:
    row = parsed(result, comparison)
    assert (row["ranks"], row["chosen_position"]) == (ranks, position)
    assert set(row) == set(LABELS.names)


def test_a_label_keeps_what_the_annotator_added() -> None:
    row = parsed({"best": 1, "reason": "kinder", "strength": 0.5, "flags": ["unsafe"]})
    assert (row["reason"], row["strength"], row["flags"]) == ("kinder", 0.5, ["unsafe"])
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
        (COMPARISON, {}, "`best` or `cannot_decide`, and only one"),
        (COMPARISON, {"best": 0, "cannot_decide": True}, "`best` or `cannot_decide`, and only one"),
        (COMPARISON, {"cannot_decide": False}, "only be true"),
        (COMPARISON, {"best": 0, "strength": 2}, "between 0 and 1"),
        (COMPARISON, {"best": 0, "strength": float("nan")}, "between 0 and 1"),
        (COMPARISON, {"best": 0, "flags": "unsafe"}, "list out of"),
        (COMPARISON, {"best": 0, "flags": ["rude"]}, "list out of"),
        (COMPARISON, {"best": 0, "flags": ["unsafe", "unsafe"]}, "twice"),
        (COMPARISON, {"best": 0, "reason": "\ud800"}, "Unicode"),
        (COMPARISON, {"unreadable": "The page has no control 'x'.", "raw": []}, "no control 'x'"),
        (COMPARISON | {"kind": "poll"}, {"best": 0}, "'poll' is no kind"),
        (PAIR, {"choice": 0, "axes": {}}, "axes"),
        (AB, {"choice": 0, "axes": [1]}, "a list, not choices"),
        (AB, {"choice": 0, "axes": {"helpful": 2}}, "something else"),
        (AB, {"choice": 0, "axes": {"helpful": True}}, "something else"),
        (AB, {"choice": 0, "axes": {"a b": 0}}, "no axis can have"),
        (RANKING, {"ranks": [1, 2, 3]}, "3 ranks for 4"),
        (RANKING, {"ranks": [1, 2, 2, 4]}, "leave none out"),
        (RANKING, {"ranks": [1, 2, 3, 4.0]}, "whole numbers"),
        (RANKING, {"ranks": {"a": 1}}, "an object, not a list"),
        (RATING, {"ratings": {}}, "empty"),
        (RATING, {"ratings": [1, 2, 3, 4]}, "a list, not ratings"),
        (RATING, {"ratings": {"overall": [1, 2, 3]}}, "4 ratings"),
        (RATING, {"ratings": {"overall": [1, 2, 3, 8]}}, "from 1 to 7"),
        (RATING, {"ratings": {"overall": [1, 2, 3, 0]}}, "from 1 to 7"),
        (RATING, {"ratings": {"overall": [1, 2, 3, True]}}, "from 1 to 7"),
        (WRITING, {"text": " \n"}, "empty"),
        (WRITING, {"text": ["Four."]}, "a list, not a text"),
        (WRITING, {"cannot_decide": True}, "cannot_decide"),
        (WRITING, {}, "must have `text`"),
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


def test_axes_are_kept_in_canonical_order() -> None:
    result = {"ratings": {"overall": [7, 1, 7, 3], "helpful": [1, 2, 3, 4]}}
    assert parsed(result, RATING)["axes"] == '{"helpful": [2, 4, 1, 3], "overall": [1, 3, 7, 7]}'
    result = {"cannot_decide": True, "axes": {"honest": "tie", "helpful": 0}}
    assert parsed(result, AB)["axes"] == '{"helpful": [2, 1], "honest": [1, 1]}'
    assert parsed({"choice": 0}, AB)["axes"] == ""


@pytest.mark.parametrize(
    ("axes", "ranks"),
    [
        (["helpful", "overall"], [2, 1]),
        (["fluent", "helpful"], [2, 1]),
        (["overall"], [1, 2]),
        (["fluent"], [1, 2]),  # none of them was rated, so `overall` decides
    ],
)
def test_the_first_axis_that_was_rated_decides_the_ranks(axes: list[str], ranks: list[int]) -> None:
    comparison = PAIR | {"kind": "rating", "display_order": [0, 1]}
    annotation = replace(ANNOTATION, result={"ratings": {"overall": [5, 3], "helpful": [1, 2]}})
    row = parse(annotation, comparison, LabelingSettings(kind="rating", rating_axes=axes))
    assert isinstance(row, dict)
    assert row["ranks"] == ranks


def test_a_demonstration_counts_once_it_is_written() -> None:
    batch = table([WRITING | {"comparison_id": name} for name in "cde"], COMPARISONS).to_pandas()
    annotations = [
        replace(ANNOTATION, result={"text": "Three."}),
        replace(ANNOTATION, result={"text": "Four."}, version=2),
        replace(ANNOTATION, annotation_id="a2", comparison_id="d", status="skipped", result={}),
    ]
    labels, _ = labels_table(annotations, batch)
    assert list(written_labels(labels)["text"]) == ["Four."]
    counts = count_labels(labels, batch)
    assert (counts.comparisons, counts.labelled, counts.usable, counts.skipped) == (3, 1, 1, 1)
    assert usable_labels(labels).empty


def test_what_a_store_could_not_translate_is_kept_as_it_was() -> None:
    raw = [{"from_name": "x", "value": "half of a pair: \ud800"}]
    result = {"unreadable": "The page has no control 'x'.", "raw": raw}
    labels, quarantine = labels_table(
        [replace(ANNOTATION, result=result)], table([COMPARISON], COMPARISONS).to_pandas()
    )
    assert labels.empty
    assert list(quarantine["problem"]) == ["The page has no control 'x'."]
    assert quarantine["raw"][0] == '[{"from_name": "x", "value": "half of a pair: ?"}]'


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
