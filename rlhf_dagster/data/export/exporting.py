"""Judgments and other records into a file or a folder, with counts of what went where and what did not."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_dagster.data.export.folder import rows_out
from rlhf_dagster.data.export.judgment_forms.base import Facts, NotHeldError, OutgoingForm
from rlhf_dagster.data.export.judgment_forms.known import OUTGOING_FORMS
from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.export.row_files import Columns, is_json
from rlhf_dagster.data.export.text_forms import TextForm
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.tables import Row


@dataclass(frozen=True)
class Exported:
    """What was written."""

    out: str
    form: str
    records: int
    """How many there were to write."""
    rows: dict[str, int]
    """Rows written, by split."""
    left_out: dict[str, int]
    """Records that are in no row, by reason."""
    cannot_hold: tuple[str, ...] = ()
    """What the form loses of those that are written."""

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "cannot_hold": list(self.cannot_hold)}


def judgment_form(name: str, out: Path) -> OutgoingForm:
    """The form of this name, our own without one; raises UserError where there is none, or ``out`` cannot hold it."""
    form = OUTGOING_FORMS.get(name or "own")
    if form is None:
        raise UserError(f"--form {name}: choose one of {', '.join(OUTGOING_FORMS)}.")
    if form.columns is None and not is_json(out):
        raise UserError(f"The form {form.name} is JSON alone: give {out.name} the ending .json or .jsonl.")
    return form


def export_judgments(
    judgments: Iterable[OutgoingJudgment], form: OutgoingForm, facts: Facts, out: Path, before: Counter[str]
) -> Exported:
    """Write judgments in a form; ``before`` counts those that are left out already, by reason."""
    left_out, splits, read = Counter(before), Counter[str](), before.total()
    with rows_out(out, columns_for(out, form, facts), splits) as write:
        for judgment in judgments:
            read += 1
            try:
                for row in form.rows(judgment):
                    write(row)
            except NotHeldError as reason:
                left_out[str(reason)] += 1
    return Exported(str(out), form.name, read, dict(splits), _counted(left_out), form.cannot_hold)


def export_texts(rows: Iterable[Row], form: TextForm, facts: Facts, out: Path) -> Exported:
    """Write rows of prompts, demonstrations or completions in a form."""
    splits: Counter[str] = Counter()
    with rows_out(out, columns_for(out, form, facts), splits) as write:
        for row in rows:
            write(form.row(row))
    return Exported(str(out), form.name, splits.total(), dict(splits), {})


def columns_for(out: Path, form: OutgoingForm | TextForm, facts: Facts) -> Columns:
    """The columns of the table that ``out`` is to be; JSON has none. Raises UserError where no table can hold them."""
    return {} if is_json(out) or form.columns is None else form.columns(facts)


def _counted(reasons: Counter[str]) -> dict[str, int]:
    return {reason: n for reason, n in reasons.most_common() if n}
