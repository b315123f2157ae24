"""Columns under the names that are known here: renamed, taken out of objects, or joined by a template."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.source import NumberedRow
from rlhf_dagster.errors import UserError

_FIELD = re.compile(r"\{([^{}]+)\}")
_ABSENT = object()


def column_map(given: Sequence[str]) -> dict[str, str]:
    """What `--column ours=theirs` says; raises UserError for what is not of this form."""
    pairs = [one.partition("=") for one in given]
    wrong = [one for one, (ours, _, theirs) in zip(given, pairs, strict=True) if not ours.strip() or not theirs]
    if wrong:
        raise UserError(f"--column {wrong[0][:40]}: give our name and that of the file, such as response_a=answer1.")
    return {ours.strip(): theirs for ours, _, theirs in pairs}


def mapped_rows(rows: Iterator[NumberedRow], columns: Mapping[str, str]) -> Iterator[NumberedRow]:
    """``rows`` with their columns under the names that ``columns`` maps to theirs.

    Theirs is a column, a way into its objects (`info.post`), or a template of several (`{title}: {body}`). Columns that
    were taken whole stay under our name alone.
    """
    for number, row in rows:
        yield number, row if isinstance(row, BadLineError) else mapped(row, columns)


def mapped(row: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    taken = {theirs for theirs in columns.values() if theirs in row}
    found = {ours: _value(row, theirs) for ours, theirs in columns.items()}
    rest = {name: value for name, value in row.items() if name not in taken}
    return rest | {ours: value for ours, value in found.items() if value is not _ABSENT}


def check_columns(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], place: str) -> None:
    """Raises UserError for a column that none of ``rows`` has."""
    for theirs in columns.values():
        for name in _FIELD.findall(theirs) or [theirs]:
            if rows and all(_found(row, name) is _ABSENT for row in rows):
                raise UserError(f"{place}: no column `{name[:40]}`; it has {', '.join(rows[0])[:200]}.")


def _value(row: Mapping[str, Any], theirs: str) -> Any:
    names = _FIELD.findall(theirs)
    if not names:
        return _found(row, theirs)
    values = {name: _found(row, name) for name in names}
    if any(value is _ABSENT for value in values.values()):
        return _ABSENT
    return _FIELD.sub(lambda name: "" if values[name[1]] is None else str(values[name[1]]), theirs)


def _found(row: Mapping[str, Any], path: str) -> Any:
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return _ABSENT
    return value
