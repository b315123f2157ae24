"""A judge's model as an annotator of a round's comparisons, marked as a machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlhf_dagster.config.judging.judge import MachineAnnotator
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.judge.asking import Judge
from rlhf_dagster.judge.comparing import Compared, ComparisonForm, compare
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.forms import result_of
from rlhf_dagster.labeling.quality.checks import MEASURING_ROLES
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.outcome import to_display
from rlhf_dagster.records.tables import records

LABELS_AT_ONCE = 50
"""Comparisons that are judged before their labels are recorded; the answers themselves are kept as they come."""


@dataclass(frozen=True)
class MachineWork:
    """What a machine did in a round."""

    given: int
    """Labels recorded now."""
    already_there: int
    unreadable: int
    """Of those recorded now: answers that could not be read. They are kept, and quarantined."""


def judge_round(
    ledger: EmbeddedLabelStore,
    judge: Judge,
    machine: MachineAnnotator,
    settings: LabelingSettings,
    round_key: str,
    progress: Callable[..., None] | None = None,
) -> MachineWork:
    """Have the machine label its share of a round's comparisons, but for those that it has labelled before.

    Labels go into the ledger alone, since a label server is where people work. ``progress(step, total)`` counts labels.
    Raises what :meth:`Judge.ask` raises; what was labelled until then stays, and is not asked again.
    """
    rows = [row for row in records(ledger.comparisons(round_key, "train")) if is_judged(row, machine)]
    done = {found.comparison_id for found in ledger.read(round_key, "train")[0] if found.annotator == machine.annotator}
    todo = [row for row in rows if row["comparison_id"] not in done]
    unreadable = 0
    for start in range(0, len(todo), LABELS_AT_ONCE):
        part = todo[start : start + LABELS_AT_ONCE]
        labels = _labels(judge, machine, settings, part)
        ledger.submit_many(labels)
        unreadable += sum("unreadable" in label.result for label in labels)
        if progress:
            progress(start + len(part), len(todo))
    return MachineWork(len(todo), len(rows) - len(todo), unreadable)


def is_judged(comparison: Mapping[str, Any], machine: MachineAnnotator) -> bool:
    """Whether a comparison is in the machine's share."""
    drawn = int(content_hash("machine", machine.name, comparison["comparison_id"])[:8], 16)
    return drawn < machine.share * 16**8


def without_people(comparisons: pd.DataFrame, machine: MachineAnnotator | None) -> pd.DataFrame:
    """``comparisons`` of which those that the machine judges in place of people want no label of theirs.

    People are asked about those that only measure annotators all the same.
    """
    if machine is None or not machine.instead_of_people:
        return comparisons
    rows = records(comparisons)
    alone = [row["role"] not in MEASURING_ROLES and is_judged(row, machine) for row in rows]
    wanted = [0 if machines else row["labels_wanted"] for row, machines in zip(rows, alone, strict=True)]
    return comparisons.assign(labels_wanted=pd.Series(wanted, comparisons.index, comparisons["labels_wanted"].dtype))


def _labels(
    judge: Judge, machine: MachineAnnotator, settings: LabelingSettings, rows: Sequence[Mapping[str, Any]]
) -> list[Submission]:
    found: dict[str, Compared] = {}
    for kind in sorted({row["kind"] for row in rows}):
        form = ComparisonForm(machine.instructions, kind, settings.rating_axes if kind == "rating" else ())
        same = [row for row in rows if row["kind"] == kind]
        asked = [(str(prompt_of_row(row)), to_display(row["responses"], row["display_order"])) for row in same]
        answers = compare(judge, form, asked, machine.both_orders)
        found |= {row["comparison_id"]: answer for row, answer in zip(same, answers, strict=True)}
    return [_label(row, found[row["comparison_id"]], machine.annotator) for row in rows]


def _label(row: Mapping[str, Any], compared: Compared, annotator: str) -> Submission:
    answer = compared.answer
    if answer is None:
        result = {"unreadable": f"The judge gave no answer that can be read: {compared.problem}.", "raw": compared.said}
    elif row["kind"] == "rating":
        result = result_of([1], "rating", answer.axes)
    else:
        result = result_of(answer.ranks, row["kind"])
    return Submission(row["comparison_id"], annotator, result)
