"""Tables that people bring: what no training could use is one sentence, which names the file and the column."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.records import tables
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import (
    COMPARISONS,
    PREFERENCES,
    PROMPTS,
    cast_to,
    later_columns,
    table,
    with_later_columns,
)
from rlhf_dagster.records.tables import frame_of, read_table, sorted_table, table_of

LABEL: dict[str, Any] = {
    **dict.fromkeys(("label_id", "comparison_id", "round", "prompt_id", "annotator"), "x"),
    "kind": "pair",
    "prompt": "red",
    "responses": ["good", "bad"],
    "policy_ids": ["a", "b"],
    "ranks": [1, 2],
    "target": [1.0, 0.0],
    "split": "train",
    "weight": 1.0,
    "strength": None,
    "ratings": None,
}


def written(folder: Path, **changes: Any) -> Path:
    pd.DataFrame([LABEL, LABEL | changes]).to_parquet(folder / "labels.parquet")
    return folder / "labels.parquet"


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    assert len(read_table(written(tmp_path), PREFERENCES)) == 2
    assert len(read_table(written(tmp_path, strength=0.5, ranks=None), PREFERENCES)) == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [("prompt", None), ("responses", None), ("responses", ["good", None]), ("target", [0.5, None]), ("split", None)],
)
def test_a_null_is_said_with_its_row(tmp_path: Path, column: str, value: Any) -> None:
    path = written(tmp_path, **{column: value})
    with pytest.raises(UserError, match=rf"labels.parquet: column '{column}' is null in row 2; give a value"):
        read_table(path, PREFERENCES)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [("text", [1, 2], "int64"), ("text", [["a"], ["b"]], "list<"), ("split", [0.5, 1.5], "double")],
)
def test_another_type_is_said(tmp_path: Path, column: str, values: list[Any], found: str) -> None:
    rows = {name: ["a", "b"] for name in PROMPTS.names if name != "messages"} | {column: values}
    path = tmp_path / "prompts.parquet"
    pq.write_table(pa.table(rows), path)
    with pytest.raises(UserError, match=f"prompts.parquet: column '{column}' holds {found}.*, and string is needed"):
        read_table(path, PROMPTS)


def test_a_table_of_version_0_1_has_nulls_in_later_columns() -> None:
    assert later_columns(PREFERENCES) == ["strength", "ratings", "token_ids", "tokenizers", "messages"]
    assert "prompt_id" not in later_columns(PROMPTS)
    row = dict.fromkeys(COMPARISONS.names) | {"comparison_id": "c", "responses": ["a", "b"]}
    new = table([row | {"token_ids": [[1], None], "tokenizers": ["t", ""]}], COMPARISONS)
    old = new.drop_columns(later_columns(COMPARISONS))
    for read in (cast_to(old, COMPARISONS), table(old.to_pandas(), COMPARISONS)):
        assert read.schema == COMPARISONS
        assert read.to_pylist() == [row]
    assert cast_to(new, COMPARISONS) == new
    together = pd.concat([with_later_columns(old.to_pandas(), COMPARISONS), new.to_pandas()])
    assert table(together, COMPARISONS)["token_ids"].to_pylist() == [None, [[1], None]]
    with pytest.raises(ValueError, match="schema"):
        cast_to(new.drop_columns(["prompt"]), COMPARISONS)


ASKED: dict[str, Any] = {
    **dict.fromkeys(("comparison_id", "round", "kind", "purpose", "role", "prompt_id", "prompt", "repeat_of"), "x"),
    **{"completion_ids": ["a", "b"], "responses": ["good", "bad"], "policy_ids": ["p", "p"], "labels_wanted": 1},
    **{"project": "", "task_id": "", "display_order": [1, 0]},
}


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_rows_that_come_one_by_one_make_the_same_table(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)
    known = [ASKED | {"task_id": str(number), "gold_ranks": [1, 2] if number else None} for number in range(rows)]
    later = dict.fromkeys(later_columns(COMPARISONS))
    made, wanted = table_of(iter(known), COMPARISONS), table([row | later for row in known], COMPARISONS)
    assert made.equals(wanted)
    assert made.schema == COMPARISONS
    assert to_parquet(made) == to_parquet(pa.table(wanted.columns, schema=COMPARISONS))
    pd.testing.assert_frame_equal(frame_of(made), wanted.to_pandas())


def test_equal_lists_share_an_array_unless_many_are_different(monkeypatch) -> None:
    monkeypatch.setattr(tables, "_FEW", 2)
    lists = [[1, 2], [2, 1], None, [1, 2], [], [2, 1], [3], [4], [1, 2]]
    frame = frame_of(pa.table({"n": range(9), "ranks": pa.array(lists, pa.list_(pa.int32()))}))
    assert frame.columns.tolist() == ["n", "ranks"]
    assert [None if one is None else one.tolist() for one in frame["ranks"]] == lists
    assert frame["ranks"][0] is frame["ranks"][3]


def test_a_table_is_sorted_by_several_columns() -> None:
    found = pa.table({"name": ["é", "b", "b", "B"], "version": [1, 2, 1, 1], "flags": [["x"], [], None, ["y"]]})
    rows = sorted_table(found, ["name", "version"]).to_pylist()
    assert [(row["name"], row["version"], row["flags"]) for row in rows] == [
        ("B", 1, ["y"]),
        ("b", 1, None),
        ("b", 2, []),
        ("é", 1, ["x"]),
    ]
