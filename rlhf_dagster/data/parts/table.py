"""A table of imported records in parts: the file of its name, and files of a folder behind it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlhf_dagster.errors import Damaged, UserError, first_line
from rlhf_dagster.records.parquet import read_parquet, to_parquet
from rlhf_dagster.records.schemas import cast_to
from rlhf_dagster.storage.base import Store, read_with, update

PART_ROWS = 10_000
"""A part with as many rows is left as it is, and what comes goes to the next one."""


@dataclass(frozen=True)
class ImportedTable:
    """Rows of ``schema``, whose first column is their id, in ``imports/<name>.parquet`` and ``imports/<name>/``.

    Rows are added behind those that are there, to the last part or as the next one; two processes can add at the same
    time. Where several rows have one id, :meth:`read` keeps the first; or, of those that name a ``user``, the first.
    """

    store: Store
    name: str
    schema: pa.Schema

    @property
    def first_key(self) -> str:
        """Where the first part is: all of the table, as long as it is small or by version 0.1."""
        return f"imports/{self.name}.parquet"

    def parts(self) -> list[str]:
        """Keys of the parts, oldest first."""
        if not self.store.exists(self.first_key):
            return []
        return [self.first_key, *(key for key in self.store.list(f"imports/{self.name}") if key.endswith(".parquet"))]

    def read(self) -> pa.Table | None:
        """The whole table, each id once; None before anything was added. Raises UserError where a part is damaged."""
        keys = self.parts()
        if not keys:
            return None
        return without_repeats(pa.concat_tables(self._part(key) for key in keys))

    def columns(self, names: list[str], last: bool = False) -> Iterator[pa.Table]:
        """Those of some columns that each part has, or the ``last`` alone; the rest of the part is not read."""
        for key in self.parts()[-1 if last else 0 :]:
            try:
                yield read_with(self.store, key, lambda file: _columns(file, names))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise self._unreadable(key, error) from None

    def append(self, rows: pa.Table) -> None:
        """Add rows of the schema."""
        key = next(reversed(self.parts()), "")
        if key and self._rows(key) < PART_ROWS:
            update(self.store, key, lambda data: self._extended(data, key, rows))
        else:
            self._create(rows)

    def _create(self, rows: pa.Table) -> None:
        """Add rows as a part of their own, the next one that nobody else has made."""
        data = to_parquet(rows)
        while not self.store.create(self._next_key(), data):
            pass

    def _next_key(self) -> str:
        keys = self.parts()
        return f"imports/{self.name}/{len(keys):06}.parquet" if keys else self.first_key

    def _rows(self, key: str) -> int:
        try:
            return int(read_with(self.store, key, lambda file: pq.read_metadata(file).num_rows))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._unreadable(key, error) from None

    def _extended(self, data: bytes | None, key: str, rows: pa.Table) -> bytes:
        before = self.schema.empty_table() if data is None else self._table(data, key)
        return to_parquet(without_repeats(pa.concat_tables([before, rows])))

    def _part(self, key: str) -> pa.Table:
        found = self.store.get(key)
        return self.schema.empty_table() if found is None else self._table(found.data, key)

    def _table(self, data: bytes, key: str) -> pa.Table:
        try:
            return cast_to(read_parquet(data, key), self.schema)
        except (pa.ArrowException, ValueError, Damaged) as error:
            raise self._unreadable(key, error) from None

    def _unreadable(self, key: str, error: Exception) -> UserError:
        return UserError(
            f"{key}: not a table of imported records ({first_line(error)}); move it away and import again."
        )


def _columns(file: BinaryIO, names: list[str]) -> pa.Table:
    part = pq.ParquetFile(file, page_checksum_verification=True)
    there = [name for name in names if name in part.schema_arrow.names]
    return part.read(columns=there, use_threads=False)


def without_repeats(rows: pa.Table) -> pa.Table:
    """One row for each id (the first column), at the place of the first: that one, or the first that names its user."""
    ids = rows.column(0)
    if pc.count_distinct(ids).as_py() == len(ids):
        return rows
    anonymous = ~_named(rows)
    frame = pd.DataFrame({"id": ids.to_pandas(), "anonymous": anonymous, "row": np.arange(len(ids))})
    frame["place"] = frame.groupby("id")["row"].transform("min")
    kept = frame.sort_values(["anonymous", "row"]).drop_duplicates("id").sort_values("place")
    return rows.take(kept["row"].to_numpy())


def _named(rows: pa.Table) -> np.ndarray:
    """Whether each row names its user: (rows,) bool."""
    if "user" not in rows.column_names:
        return np.zeros(len(rows), dtype=bool)
    return np.asarray(pc.fill_null(pc.not_equal(rows["user"], ""), False))
