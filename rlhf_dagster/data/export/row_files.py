"""Files of rows: JSON lines, a JSON list, text with commas or tabs, Parquet; by the ending of the file's name."""

import csv
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.common.files import writing
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.schemas import PROMPTS

Write = Callable[[Mapping[str, Any]], None]
Columns = Mapping[str, pa.DataType]
CHAT_MESSAGES = PROMPTS.field("messages").type
"""The type of a column of messages."""
_AT_ONCE = 1000
STAYS_NULL = "choice"
"""The column whose null says something: an annotator who could not decide. Other gaps are left out of JSON."""


@contextmanager
def rows_to(path: Path, columns: Columns) -> Iterator[Write]:
    """Write rows with these columns to a new file, which is there once all are written.

    In a table of text, lists and objects are JSON in their cells. Raises UserError for an ending that is not known, for
    a file that is there already, and for a row whose values are not of the columns' types.
    """
    kind = _KINDS.get(ending(path))
    if kind is None:
        raise UserError(f"{path}: the name must end in {', '.join(_KINDS)}, or in nothing for a folder.")
    if path.exists():
        raise UserError(f"{path} exists already; remove it, or choose another name.")
    part = path.with_name(f".{path.name}.part")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with kind(part, columns) as write:
                yield write
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)


def ending(path: Path) -> str:
    """What a file's name ends in, with what it is compressed by: ``.jsonl.gz``; empty for a folder."""
    *_, last = ["", *path.suffixes]
    return "".join(path.suffixes[-2:]).lower() if last == ".gz" else last.lower()


def is_text_table(path: Path) -> bool:
    return ending(path) in _SEPARATORS


def is_json(path: Path) -> bool:
    return ending(path).startswith(".json")


@contextmanager
def _json_lines(path: Path, columns: Columns) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors=_HALVES, newline="\n") as file:
        yield lambda row: _print(file, _as_json(row) + "\n")


@contextmanager
def _json_lines_gz(path: Path, columns: Columns) -> Iterator[Write]:
    # Without a time and a name in its head, the same rows are the same bytes.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        yield lambda row: _discard(packed.write(f"{_as_json(row)}\n".encode("utf-8", _HALVES)))


@contextmanager
def _json_list(path: Path, columns: Columns) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors=_HALVES, newline="\n") as file:
        before = ["[\n"]

        def write(row: Mapping[str, Any]) -> None:
            _print(file, before[0] + _as_json(row))
            before[0] = ",\n"

        yield write
        _print(file, "\n]\n" if before[0] != "[\n" else "[]\n")


@contextmanager
def _text_table(path: Path, columns: Columns) -> Iterator[Write]:
    separator = _SEPARATORS[ending(path.with_suffix(""))]  # the part of a file ends in .part
    with path.open("w", encoding="utf-8", errors=_HALVES, newline="") as file:
        # It quotes a text for what ends its own lines, and a carriage return ends a line for readers.
        writer = csv.DictWriter(_LineFeeds(file), list(columns), delimiter=separator, lineterminator="\r\n")
        writer.writeheader()
        yield lambda row: _discard(writer.writerow({name: _cell(row.get(name)) for name in columns}))


@contextmanager
def _parquet(path: Path, columns: Columns) -> Iterator[Write]:
    schema = pa.schema(list(columns.items()))
    waiting: list[Mapping[str, Any]] = []
    with ExitStack() as stack:
        file = stack.enter_context(pq.ParquetWriter(path, schema))

        def flush() -> None:
            if waiting:
                file.write_table(_table(waiting, schema))
                waiting.clear()

        def write(row: Mapping[str, Any]) -> None:
            waiting.append(row)
            if len(waiting) >= _AT_ONCE:
                flush()

        yield write
        flush()


class _LineFeeds:
    """Where a writer of tables, which ends each row in ``\\r\\n``, writes rows that end in ``\\n``."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row.removesuffix("\r\n") + "\n")


_HALVES = "backslashreplace"
"""What becomes of halves of characters, which UTF-8 does not have: the escape that JSON has for them."""
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_KINDS = {
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines_gz,
    ".json": _json_list,
    ".csv": _text_table,
    ".tsv": _text_table,
    ".parquet": _parquet,
}


def _table(rows: list[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    plain = [_encodable(dict(row)) | {name: _as_text(row.get(name)) for name in texts} for row in rows]
    try:
        return pa.Table.from_pylist(plain, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"The rows do not fit into one table ({error}); write them as .jsonl.") from None


def _as_text(value: Any) -> Any:
    """A list or an object as JSON, for a column of texts."""
    if isinstance(value, dict | list | bool):
        value = json.dumps(value, ensure_ascii=False, sort_keys=True, default=_time)
    return _encodable(value)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", _HALVES).decode()
    if isinstance(value, list):
        return [_encodable(one) for one in value]
    return {name: _encodable(one) for name, one in value.items()} if isinstance(value, dict) else value


def _as_json(row: Mapping[str, Any]) -> str:
    said = {name: value for name, value in row.items() if value is not None or name == STAYS_NULL}
    return json.dumps(said, ensure_ascii=False, default=_time)


def _cell(value: Any) -> Any:
    return _time(value) if isinstance(value, datetime) else _as_text(value)


def _time(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    return value.isoformat()


def _print(file: IO[str], text: str) -> None:
    file.write(text)


def _discard(_: object) -> None:
    """Takes what a writer returns."""
