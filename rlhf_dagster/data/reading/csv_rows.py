"""Rows of a table in text, whose first line names the columns."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.source import NumberedRow
from rlhf_dagster.data.reading.streams import inner_suffix, lines_in, longest_row, opened_bytes
from rlhf_dagster.errors import UserError

_SEPARATORS = ",;\t|"


def csv_rows(path: Path) -> Iterator[NumberedRow]:
    """The rows with the number of the line on which each begins; every cell is a text."""
    csv.field_size_limit(longest_row())
    with opened_bytes(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        lines = lines_in(path, text)
        try:
            yield from _rows(path, lines)
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8 text; save it as UTF-8.") from None
        except csv.Error as error:
            raise UserError(f"{path}: not a table of text ({error}); correct it.") from None


def _rows(path: Path, lines: Iterator[str]) -> Iterator[NumberedRow]:
    first = next(lines, "")
    (names,) = csv.reader([first], delimiter=(separator := _separator(path, first)))
    _check_names(path, names)
    reader = csv.reader(lines, delimiter=separator)
    begins = 2
    for cells in reader:
        if cells:
            yield begins, _row(names, cells)
        begins = reader.line_num + 2


def _row(names: Sequence[str], cells: Sequence[str]) -> dict[str, str] | BadLineError:
    if len(cells) != len(names):
        return BadLineError(f"has {len(cells)} cells, and the first line names {len(names)} columns")
    return dict(zip(names, cells, strict=True))


def _separator(path: Path, first: str) -> str:
    if inner_suffix(path) == ".tsv":
        return "\t"
    return max(_SEPARATORS, key=first.count)


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UserError(f"{path}: two columns are called {twice[0][:40]!r}; the first line must name each column once.")
