"""Rows of Parquet and Arrow files, a few at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from rlhf_dagster.common.bounds.limits import MEBIBYTE, ROW_GROUP_MIB
from rlhf_dagster.data.reading.source import NumberedRow
from rlhf_dagster.data.reading.streams import require_no_bomb
from rlhf_dagster.errors import UserError, first_line

_FIRST_BATCH, _BATCH_BYTES = 16, 8 * 2**20
"""Rows of the first batch, which show how large rows are, and about how many bytes a later batch has."""


def parquet_rows(path: Path) -> Iterator[NumberedRow]:
    try:
        with parquet.ParquetFile(path) as file:
            _require_bounded(path, file.metadata)
            yield from _numbered(_no_bomb(path, _sound(_parquet_batches(file))))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a whole Parquet file ({first_line(error)}).") from None


def arrow_rows(path: Path) -> Iterator[NumberedRow]:
    """Of a file or a stream in Arrow's format, as `datasets` and Feather write them."""
    try:
        with pa.memory_map(str(path)) as memory:
            yield from _numbered(_arrow_batches(memory))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of names of columns
        raise UserError(f"{path}: not a whole Arrow file ({first_line(error)}).") from None


def _require_bounded(path: Path, metadata: Any) -> None:
    """Raise UserError for a file of which a part would be unpacked to more than may be in memory.

    Of row groups, not of their columns: asked for a column that is damaged, pyarrow ends the process.
    """
    for group in range(metadata.num_row_groups):
        if metadata.row_group(group).total_byte_size > ROW_GROUP_MIB.most * MEBIBYTE:
            raise UserError(
                f"{path}: its row group {group + 1} unpacks to more than {ROW_GROUP_MIB.most:,} MiB; write it anew in "
                f"smaller ones, or {ROW_GROUP_MIB.said()}."
            )


def _parquet_batches(file: Any) -> Iterator[Any]:
    size = _FIRST_BATCH
    for group in range(file.num_row_groups):
        batches = file.iter_batches(batch_size=size, row_groups=[group])
        for batch in batches:
            yield batch
            size = _rows_a_batch(batch)
            if size > 4 * batch.num_rows and batch.num_rows == _FIRST_BATCH:
                break
        else:
            continue
        yield from _rest(file, group, _FIRST_BATCH, size)


def _rest(file: Any, group: int, done: int, size: int) -> Iterator[Any]:
    """The batches of a row group after its first ``done`` rows, in a batch size that suits their length."""
    for batch in file.iter_batches(batch_size=size, row_groups=[group]):
        left = batch.slice(done)
        done = max(done - batch.num_rows, 0)
        if left.num_rows:
            yield left


def _arrow_batches(memory: Any) -> Iterator[Any]:
    if memory.read(6) == b"ARROW1":
        file = pa.ipc.open_file(memory)
        whole = (file.get_batch(index) for index in range(file.num_record_batches))
    else:
        memory.seek(0)
        whole = iter(pa.ipc.open_stream(memory))
    for batch in _sound(whole):
        size = _rows_a_batch(batch)
        yield from (batch.slice(start, size) for start in range(0, batch.num_rows, size))


def _sound(batches: Iterator[Any]) -> Iterator[Any]:
    """Batches of which every part is looked at first: by damaged offsets, texts would come from anywhere in memory."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _no_bomb(path: Path, batches: Iterator[Any]) -> Iterator[Any]:
    """The batches, as long as they are not far more than the file: in it a value may be once, for many rows."""
    packed, unpacked = path.stat().st_size, 0
    for batch in batches:
        unpacked += batch.nbytes
        require_no_bomb(path, packed, unpacked)
        yield batch


def _rows_a_batch(batch: Any) -> int:
    """So many rows as large as those of ``batch`` have about _BATCH_BYTES."""
    return max(1, min(10_000, int(_BATCH_BYTES * batch.num_rows / max(batch.nbytes, 1)) or 1))


def _numbered(batches: Iterator[Any]) -> Iterator[NumberedRow]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield number, row
