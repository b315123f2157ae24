"""Tables that people bring: what no training could use is one sentence, which names the file and the column."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.schemas import PREFERENCES, PROMPTS
from rlhf_dagster.records.tables import read_table

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
