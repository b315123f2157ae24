"""The formats of files that rows are read from, told apart by their first bytes and their names."""

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_dagster.common.bounds.limits import IMPORT_FILES
from rlhf_dagster.common.bounds.odd_files import odd_kind
from rlhf_dagster.data.reading.csv_rows import csv_rows
from rlhf_dagster.data.reading.json_rows import json_rows
from rlhf_dagster.data.reading.source import NumberedRow, RowSource
from rlhf_dagster.data.reading.streams import COMPRESSED, inner_suffix
from rlhf_dagster.data.reading.table_rows import arrow_rows, parquet_rows
from rlhf_dagster.errors import UserError


@dataclass(frozen=True)
class _Format:
    suffixes: tuple[str, ...]
    unit: str
    rows: Callable[[Path], Iterator[NumberedRow]]


_JSON = _Format((".jsonl", ".json", ".ndjson"), "line", json_rows)
_CSV = _Format((".csv", ".tsv"), "line", csv_rows)
_PARQUET = _Format((".parquet",), "row", parquet_rows)
_ARROW = _Format((".arrow", ".feather"), "row", arrow_rows)
_FORMATS = (_JSON, _CSV, _PARQUET, _ARROW)
_MAGIC = {b"PAR1": _PARQUET, b"ARROW1": _ARROW, b"\xff\xff\xff\xff": _ARROW}
SUFFIXES = tuple(suffix for known in _FORMATS for suffix in known.suffixes)
_ABOUT = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")
"""Files about a data set that lie beside its rows."""


def open_source(path: Path) -> RowSource:
    """The rows of a file, or of all files of a folder in the order of their names.

    Raises UserError for what is not there or is none of both. A file's content decides over its name where the two
    disagree, so that a Parquet file called `data` is read as well.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        return _folder(path)
    if what := odd_kind(mode):
        raise UserError(f"{path}: {what}, not a file; give a file or a folder.")
    kind = _format_of(path)
    return RowSource(path.name, str(path), kind.unit, lambda: kind.rows(path))


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def _format_of(path: Path) -> _Format:
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if head.startswith(b"PK\x03\x04"):
        raise UserError(f"{path}: an archive of files; unpack it and give a file or the folder.")
    found = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    suffix = inner_suffix(path)
    named = next((kind for kind in _FORMATS if suffix in kind.suffixes), _JSON)
    return found or named


def sources_in(path: Path) -> list[RowSource]:
    """The files of a folder that hold rows, in the order of their names; or the file itself."""
    return [open_source(file) for file in _files_of(path)] if stat.S_ISDIR(_mode(path)) else [open_source(path)]


def _folder(path: Path) -> RowSource:
    files = sources_in(path)
    if not files:
        raise UserError(f"{path}: no such file in the folder; rows are read from {', '.join(SUFFIXES)}, packed or not.")
    return RowSource(path.name, str(path), "row", lambda: _one_after_another(files))


def _files_of(folder: Path) -> list[Path]:
    """Files with rows: of the folder itself, of its `data` (as the Hub has them), or of its splits (`save_to_disk`)."""
    for pattern in ("*", "data/*", "*/*.arrow*"):
        found = [file for file in sorted(folder.glob(pattern)) if _holds_rows(file)]
        if len(found) > IMPORT_FILES.most:
            raise UserError(f"{folder}: has {len(found):,} files with rows, which are too many; {IMPORT_FILES.said()}.")
        if found:
            return found
    return []


def _holds_rows(file: Path) -> bool:
    if file.name in _ABOUT or file.name.startswith((".", "_")) or not file.is_file():
        return False
    return inner_suffix(file) in SUFFIXES and (file.suffix.lower() in COMPRESSED or file.suffix.lower() in SUFFIXES)


def _one_after_another(files: Sequence[RowSource]) -> Iterator[NumberedRow]:
    """Rows numbered through all files."""
    number = 0
    for file in files:
        for _, row in file.rows():
            number += 1
            yield number, row
