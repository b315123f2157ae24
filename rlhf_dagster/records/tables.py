"""Tables out of rows and files, and rows out of tables."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.schemas import with_later_columns

Row = dict[str, Any]
"""A row of a table, by column name."""
NEVER_NULL = frozenset(
    ["text", "prompt", "response", "responses", "split", "kind", "comparison_id", "label_id", "target", "weight"],
)
"""Columns without which a row cannot be trained on."""
TYPED = (NEVER_NULL - {"comparison_id", "label_id"}) | {
    "ranks",
    "strength",
    "ratings",
    "token_ids",
    "tokenizers",
    "messages",
}
"""Columns that trainings compute with."""
_ROWS_AT_ONCE = 10_000
_FEW = 256
"""So many different lists of a column share their arrays; a column that has more is no column of a few answers."""
HELD_OUT_SPLITS = ("validation", "held_out_annotators")
"""Splits of a PREFERENCES table that nothing is trained on."""


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """The table in a Parquet file (or folder of them).

    Raises UserError where it is missing, lacks columns, or has values that the schema does not.
    """
    if not path.exists():
        raise UserError(f"{path}: no such table; make it first or correct the path.")
    found = _read(path)
    _require_types(found, schema, path)
    frame = with_later_columns(found.to_pandas(), schema)
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


def _require_types(found: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Raise UserError at the first column with values of another type, or null where a training needs a value."""
    for field in schema:
        if field.name not in found.column_names:
            continue
        column = found.column(field.name)
        if field.name in NEVER_NULL and (row := _first_null(column)) is not None:
            raise UserError(f"{path}: column {field.name!r} is null in row {row + 1}; give a value, or leave it out.")
        if field.name in TYPED and column.null_count < len(column) and _sort(column.type) != _sort(field.type):
            raise UserError(
                f"{path}: column {field.name!r} holds {column.type}, and {field.type} is needed; make the table again."
            )


def _first_null(column: pa.ChunkedArray) -> int | None:
    """The first row that is null, or a list with a null in it."""
    values = column.to_pylist() if column.null_count or pa.types.is_list(column.type) else []
    wrong = (row for row, value in enumerate(values) if value is None or (isinstance(value, list) and None in value))
    return next(wrong, None)


def _sort(kind: pa.DataType) -> str:
    """What kind of value a type holds, whatever its width."""
    if pa.types.is_dictionary(kind):
        return _sort(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_sort(kind.value_type)}"
    if pa.types.is_struct(kind):
        fields = sorted((field.name, _sort(field.type)) for field in kind)
        return " and ".join(f"{name} of {sort}" for name, sort in fields)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    return str(kind)


def table_of(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """The table of rows that come one after the other; of these only some are held at once.

    Its columns are in one piece, as those of :func:`~rlhf_dagster.records.schemas.table`: a file of it has the same
    bytes.
    """
    coming = iter(rows)
    parts = [_columns_of(part, schema) for part in iter(lambda: list(islice(coming, _ROWS_AT_ONCE)), [])]
    columns = pa.concat_tables(parts).columns if parts else schema.empty_table().columns
    del parts
    return pa.table([_in_one_piece(columns.pop(0)) for _ in schema], schema=schema)


def _in_one_piece(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """One chunk, or as few as can hold the texts."""
    return pa.table([column], names=[""]).combine_chunks().column(0)


def _columns_of(rows: list[Row], schema: pa.Schema) -> pa.Table:
    columns = [pa.array([row.get(field.name) for row in rows], type=field.type, from_pandas=True) for field in schema]
    return pa.table(columns, schema=schema)


def sorted_table(found: pa.Table, by: list[str]) -> pa.Table:
    """The rows by some columns, ascending; where nobody else holds ``found``, its columns go one after the other."""
    order, schema, columns = pc.sort_indices(found, [(name, "ascending") for name in by]), found.schema, found.columns
    del found
    return pa.table([columns.pop(0).take(order) for _ in schema], schema=schema)


def frame_of(found: pa.Table) -> pd.DataFrame:
    """The data frame of a table, in which equal short lists, such as ranks, are one array.

    Each array takes ten times the memory of what is in it, which is most of what a large table of labels takes.
    """
    lists = [place for place, field in enumerate(found.schema) if _is_list_of_values(field.type)]
    frame = found.drop_columns([found.column_names[place] for place in lists]).to_pandas()
    for place in lists:
        frame.insert(place, found.column_names[place], pd.Series(_shared(found.column(place)), frame.index, object))
    return frame


def _is_list_of_values(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type)


def _shared(column: pa.ChunkedArray) -> np.ndarray:
    """(rows,) object: an array for each list, the same one for equal lists; None for null."""
    values, known = np.empty(len(column), dtype=object), dict[tuple[Any, ...], np.ndarray]()
    for start in range(0, len(column), _ROWS_AT_ONCE):
        part = column.slice(start, _ROWS_AT_ONCE).to_pandas().to_numpy()
        if len(known) <= _FEW:
            part = [None if one is None else known.setdefault(tuple(one.tolist()), one) for one in part]
        values[start : start + len(part)] = part
    return values


def rows_of_split(frame: pd.DataFrame, split: str, path: Path) -> pd.DataFrame:
    """The rows of one split; raises UserError where there are none."""
    rows = frame[frame["split"] == split]
    if rows.empty:
        raise UserError(f"{path}: no row of split {split!r}; at least one is needed.")
    return rows.reset_index(drop=True)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary for each row, keyed by column name."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def grouped(frame: pd.DataFrame, column: str) -> list[list[Row]]:
    """The rows of each value of ``column``, by first appearance; rows without a value are left out.

    All rows are made at once: a data frame of each group would take a millisecond for every comparison.
    """
    groups: dict[Any, list[Row]] = {}
    for row in records(frame[frame[column].notna()]):
        groups.setdefault(row[column], []).append(row)
    return list(groups.values())
