"""Reading the Parquet tables that a stage is given."""

from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.schemas import PREFERENCES, with_later_columns

Row = dict[str, Any]
"""A row of a table, by column name."""
HELD_OUT_SPLITS = ("validation", "held_out_annotators")
"""Splits of a PREFERENCES table that nothing is trained on."""


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """The table in a Parquet file (or folder of them); raises UserError where it is missing or lacks columns."""
    if not path.exists():
        raise UserError(f"{path}: no such table; make it first or correct the path.")
    frame = _read(path).to_pandas()
    if schema is PREFERENCES:
        frame = with_later_columns(frame)
    missing = [name for name in schema.names if name not in frame.columns]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; the table must have {', '.join(schema.names)}.")
    return frame


def _read(path: Path) -> pa.Table:
    if path.is_file():
        return read_parquet(path)
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet table ({first_line(error)}); make it again.") from None


def rows_of_split(frame: pd.DataFrame, split: str, path: Path) -> pd.DataFrame:
    """The rows of one split; raises UserError where there are none."""
    rows = frame[frame["split"] == split]
    if rows.empty:
        raise UserError(f"{path}: no row of split {split!r}; at least one is needed.")
    return rows.reset_index(drop=True)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary for each row, keyed by column name."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))
