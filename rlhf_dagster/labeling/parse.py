"""Annotations to labels, read strictly; what cannot be read is kept aside with the reason."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import STOP, read_answer, read_extras, read_order
from rlhf_dagster.labeling.store import Annotation, LabelCounts, Status
from rlhf_dagster.records.answers import UnreadableError
from rlhf_dagster.records.ids import label_id
from rlhf_dagster.records.machines import by_machine
from rlhf_dagster.records.outcome import best, to_canonical
from rlhf_dagster.records.schemas import LABELS, QUARANTINE, table
from rlhf_dagster.records.tables import records

STOP_REASONS = 3
"""How many of the reasons to stop the training are counted with the labels."""


class StopRequest(NamedTuple):
    """A label whose annotator asks to stop the training."""

    position: int
    annotator: str
    reason: str


@dataclass(frozen=True)
class Problem:
    """Why an annotation cannot be used."""

    reason: str


def parse(
    annotation: Annotation, comparison: Mapping[str, Any], settings: LabelingSettings | None = None
) -> dict[str, Any] | Problem:
    """The row of LABELS for one annotation version of ``comparison`` (a row of COMPARISONS).

    The forms of a result are those of :mod:`rlhf_dagster.labeling.forms`. Of ``settings`` only the order of
    ``rating_axes`` matters, whose first decides the ranks: labels given before an axis was added stay readable.
    ``latest`` is True here; :func:`labels_table`, which sees the other versions, corrects it.
    """
    if annotation.status not in get_args(Status):
        return Problem(f"The status is {str(annotation.status)[:40]!r}, not submitted, skipped or deleted.")
    row = _row(annotation, comparison)
    if annotation.status != "submitted":
        return row
    try:
        answer = read_answer(annotation.result, comparison, settings.rating_axes if settings else ())
        extras = read_extras(annotation.result)
        shown = read_order(annotation.result, len(comparison["display_order"]))
    except UnreadableError as error:
        return Problem(str(error))
    order = comparison["display_order"]
    axes = {axis: to_canonical(values, order) for axis, values in answer.axes.items()}
    row |= extras | {"text": answer.text, "axes": json.dumps(axes, sort_keys=True) if axes else ""}
    row["display_order"] = shown
    if answer.ranks is None:
        return row
    ranks = to_canonical(answer.ranks, order)
    return row | {"ranks": ranks, "chosen_position": _chosen_position(ranks, order if shown is None else shown)}


def labels_table(
    annotations: Iterable[Annotation], comparisons: pd.DataFrame, settings: LabelingSettings | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every annotation version as a row of LABELS or, where it cannot be read, of QUARANTINE; see :func:`parse`.

    ``latest`` marks the last version of each annotation. A version that is skipped, deleted or unreadable still
    replaces the earlier ones: what its annotator took back does not count.
    """
    labels, quarantine = _label_rows(annotations, comparisons, settings)
    return table(labels, LABELS).to_pandas(), table(quarantine, QUARANTINE).to_pandas()


def readable_labels(annotations: Iterable[Annotation], comparisons: pd.DataFrame) -> pd.DataFrame:
    """The first table of :func:`labels_table` alone."""
    return table(_label_rows(annotations, comparisons, None)[0], LABELS).to_pandas()


def _label_rows(
    annotations: Iterable[Annotation], comparisons: pd.DataFrame, settings: LabelingSettings | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    versions = sorted(annotations, key=lambda annotation: (annotation.annotation_id, annotation.version))
    newest = {annotation.annotation_id: annotation.version for annotation in versions}
    known = {row["comparison_id"]: row for row in records(comparisons)}
    labels, quarantine = [], []
    for annotation in versions:
        comparison = known.get(annotation.comparison_id)
        row = parse(annotation, comparison, settings) if comparison else Problem("No such comparison was sent.")
        if isinstance(row, Problem):
            quarantine.append(_quarantined(annotation, row))
        else:
            labels.append(row | {"latest": annotation.version == newest[annotation.annotation_id]})
    return labels, quarantine


def usable_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """The labels that count: submitted, in their last version, deciding something, one for a person and comparison.

    A label store can hold two annotations by one person on one comparison; the one made last counts.
    """
    return _counting(labels, labels["ranks"].notna())


def written_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """The demonstrations that count: submitted, in their last version, one for a person and comparison."""
    return _counting(labels, labels["text"].fillna("") != "")


def countable_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """The usable labels and the demonstrations written: a demonstration is usable as soon as it is written."""
    return pd.concat([usable_labels(labels), written_labels(labels)])


def count_labels(labels: pd.DataFrame, comparisons: pd.DataFrame) -> LabelCounts:
    """Counts of a round's labels (columns of LABELS); the fields about new labels keep their defaults."""
    machine, labels = machine_labels(labels), counting_labels(labels, comparisons)
    counts = counts_of(labels, comparisons, len(countable_labels(labels)), stop_requests(labels))
    return replace(counts, machine=machine)


def counting_labels(labels: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """The labels that counts of a round's progress are of: people's, and a machine's where no person is asked.

    A person may have judged what no person was asked about: what people and a machine said comes in different imports.
    """
    alone, machine = (
        comparisons.loc[comparisons["labels_wanted"] == 0, "comparison_id"],
        by_machine(labels["annotator"]),
    )
    by_people = labels.loc[~machine & labels["latest"] & (labels["status"] == "submitted"), "comparison_id"]
    return labels[~machine | (labels["comparison_id"].isin(alone) & ~labels["comparison_id"].isin(by_people))]


def machine_labels(labels: pd.DataFrame) -> int:
    """How many usable labels are by machines."""
    machines = by_machine(labels["annotator"])
    return len(usable_labels(labels[machines])) if machines.any() else 0


def counts_of(
    labels: pd.DataFrame, comparisons: pd.DataFrame, usable: int, requests: Sequence[StopRequest]
) -> LabelCounts:
    """:func:`count_labels` where it is known how many labels are usable and which ask to stop."""
    latest = labels[labels["latest"]]
    submitted = latest[latest["status"] == "submitted"].drop_duplicates(["comparison_id", "annotator"])
    judged = submitted["comparison_id"].value_counts()
    given = judged.reindex(comparisons["comparison_id"], fill_value=0).to_numpy()
    return LabelCounts(
        comparisons=len(comparisons),
        labelled=int((given > 0).sum()),
        labels=len(submitted),
        usable=usable,
        skipped=int((latest["status"] == "skipped").sum()),
        complete=int((given >= comparisons["labels_wanted"]).sum()),
        position=int(labels["position"].max()) if len(labels) else 0,
        **stop_fields(requests),
    )


def stop_requests(labels: pd.DataFrame) -> list[StopRequest]:
    """The labels that ask to stop the training, by position."""
    latest = labels[labels["latest"] & (labels["status"] == "submitted")]
    asked = latest[latest["flags"].map(lambda flags: STOP in flags).astype(bool)]
    found = zip(asked["position"], asked["annotator"], asked["reason"], strict=True)
    return sorted(StopRequest(int(position), annotator, reason) for position, annotator, reason in found)


def stop_fields(requests: Sequence[StopRequest]) -> dict[str, Any]:
    """What the counts say of them: how many people ask, and the newest of their reasons."""
    reasons = dict.fromkeys(request.reason for request in reversed(requests) if request.reason)
    people = {request.annotator for request in requests}
    return {"stop_requests": len(people), "stop_reasons": list(reasons)[:STOP_REASONS]}


def _counting(labels: pd.DataFrame, says_something: pd.Series) -> pd.DataFrame:
    counted = labels["latest"] & (labels["status"] == "submitted") & says_something
    if not counted.any():
        return labels.iloc[:0]
    ordered = labels[counted].sort_values(["updated_at", "label_id"])
    return ordered.drop_duplicates(["comparison_id", "annotator"], keep="last").sort_values("label_id")


def _chosen_position(ranks: Sequence[int], shown: Sequence[int]) -> int | None:
    """Where the single best response was shown; None where there is none, or the order is not known (empty)."""
    chosen = best(ranks)
    return list(shown).index(chosen[0]) if len(chosen) == 1 and len(shown) else None


def _row(annotation: Annotation, comparison: Mapping[str, Any]) -> dict[str, Any]:
    identity = (annotation.comparison_id, annotation.annotator, annotation.annotation_id, annotation.version)
    return {
        "label_id": label_id(*identity),
        "comparison_id": annotation.comparison_id,
        "round": comparison["round"],
        "kind": comparison["kind"],
        "purpose": comparison["purpose"],
        "annotator": annotation.annotator,
        "annotation_id": annotation.annotation_id,
        "version": annotation.version,
        "latest": True,
        "status": annotation.status,
        "ranks": None,
        "chosen_position": None,
        "strength": None,
        "axes": "",
        "text": "",
        "flags": [],
        "reason": "",
        "seconds": annotation.seconds,
        "created_at": annotation.created_at,
        "updated_at": annotation.updated_at,
        "position": annotation.position,
        "display_order": None,
        "metadata": "",
    }


def _quarantined(annotation: Annotation, problem: Problem) -> dict[str, Any]:
    result: Any = annotation.result
    if isinstance(result, Mapping) and set(result) == {"unreadable", "raw"}:
        result = result["raw"]
    return {
        "annotation_id": annotation.annotation_id,
        "comparison_id": annotation.comparison_id,
        "annotator": annotation.annotator,
        "problem": _storable(problem.reason),
        "raw": _storable(json.dumps(result, ensure_ascii=False, sort_keys=True, default=str)),
    }


def _storable(text: str) -> str:
    """JSON can spell half of a surrogate pair, which no table can hold."""
    return text.encode("utf-8", "replace").decode()
