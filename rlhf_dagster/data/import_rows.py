"""Rows as records of the kind that is imported, in the form that they have."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, LeftOut, RowContent, RowValues
from rlhf_dagster.data.judgment_forms.known import FORMS, form_named, recognised
from rlhf_dagster.data.line_records import JudgmentLine, JudgmentParts, parse_gold
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.source import NumberedRow, RowSource
from rlhf_dagster.data.reading.tally import ReadTally
from rlhf_dagster.data.text_forms import demonstration_line_of, feedback_line_of, fitting_command, prompt_line_of
from rlhf_dagster.errors import UserError

_OWN = "own"
_OURS = ("comparison", "responses", "prompt")
"""Columns of our own form; a row that has one of them is told what it lacks."""


RecordsOf = Callable[[Iterable[NumberedRow], ReadTally], Iterator[tuple[int, Any]]]


@dataclass(frozen=True)
class RecordReader:
    form: str
    """Of judgments; `own` for everything else."""
    records: RecordsOf
    """The records of rows with the rows' numbers; what is refused and left out goes to the tally."""


def reader_of(kind: str, source: RowSource, first: Sequence[RowValues], form: str, strict: bool) -> RecordReader:
    """How to read rows that begin with ``first``; raises UserError where no form is named and none fits."""
    if kind == "judgments":
        chosen = form_named(form) if form else _recognised(source, first)
        return RecordReader(chosen.name, _judgments(chosen, strict))
    if form:
        raise UserError(f"--form is for judgments; {kind} are read from any form that is known.")
    if kind == "gold":
        return RecordReader(_OWN, _each(lambda row: (parse_gold(row), set(row)), strict))
    makers: dict[str, Callable[[RowValues], tuple[Any, set[str]]]] = {
        "prompts": prompt_line_of,
        "demonstrations": demonstration_line_of,
        "feedback": feedback_line_of,
    }
    return RecordReader(_OWN, _each(makers[kind], strict))


def better_command(kind: str, source: RowSource, first: Sequence[RowValues], form: str) -> str:
    """The command for what rows look like that this one refuses; empty if there is none."""
    found, file = recognised(first), shlex.quote(str(source.place))
    if kind == "judgments":
        return f"rlhf import judgments {file} --form {found.name}" if found and found.name != form else ""
    other = "judgments" if found else fitting_command(list(first), kind)
    return f"rlhf import {other} {file}" if other else ""


def _recognised(source: RowSource, first: Sequence[RowValues]) -> JudgmentForm:
    """The form of the rows; our own where none of them can be read, so that each gets its reason."""
    form = recognised(first)
    if form or not first:
        return form or FORMS[_OWN]
    other = fitting_command(list(first), "judgments")
    if other:
        raise UserError(
            f"{source.place}: its rows are {other}, not judgments; "
            f"try `rlhf import {other} {shlex.quote(str(source.place))}`."
        )
    if any(row.keys() & set(_OURS) for row in first):
        return FORMS[_OWN]
    columns = ", ".join(map(str, first[0]))[:200]
    raise UserError(
        f"{source.place}: its columns ({columns}) are those of no form of judgments; say which columns are ours with "
        f"--column response_a=THEIRS, or name the form with --form ({', '.join(FORMS)})."
    )


def _judgments(form: JudgmentForm, strict: bool) -> RecordsOf:
    def records(rows: Iterable[NumberedRow], tally: ReadTally) -> Iterator[tuple[int, JudgmentLine | JudgmentParts]]:
        for number, found in form.read(rows):
            checked = _without_unknown(found, form) if strict else found
            if isinstance(checked, LeftOut):
                tally.left_out[checked.reason] += 1
                continue
            tally.read += 1
            if isinstance(checked, BadLineError):
                tally.refuse(number, str(checked))
                continue
            if isinstance(checked, JudgmentLine):
                tally.axes.update(checked.ratings or ())
            yield number, checked

    return records


def _without_unknown(found: RowContent, form: JudgmentForm) -> RowContent:
    """``found``, refused if its metadata holds a column that the form does not know."""
    unknown = sorted(set(found.metadata) - set(form.kept)) if isinstance(found, JudgmentLine) else []
    if not unknown:
        return found
    return BadLineError(f"`{unknown[0][:40]}` is not a column that the form {form.name} knows")


def _each(make: Callable[[RowValues], tuple[Any, set[str]]], strict: bool) -> RecordsOf:
    def records(rows: Iterable[NumberedRow], tally: ReadTally) -> Iterator[tuple[int, Any]]:
        for number, row in rows:
            tally.read += 1
            try:
                if isinstance(row, BadLineError):
                    raise row
                yield number, _made(row, make, strict, tally)
            except BadLineError as error:
                tally.refuse(number, str(error))

    return records


def _made(row: RowValues, make: Callable[[RowValues], tuple[Any, set[str]]], strict: bool, tally: ReadTally) -> Any:
    record, used = make(row)
    unknown = sorted(str(key) for key in set(row) - used)
    if unknown and strict:
        raise BadLineError(f"`{unknown[0][:40]}` is not a key here")
    for name in unknown:
        tally.left_out[f"values of the column `{name[:40]}`"] += 1
    return record
