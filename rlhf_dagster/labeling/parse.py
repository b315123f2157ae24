"""Annotations to labels, read strictly; what cannot be read is kept aside with the reason."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import STOP, read_answer, read_extras, read_order
from rlhf_dagster.labeling.store import Annotation, LabelCounts, Status
from rlhf_dagster.records.answers import UnreadableError
from rlhf_dagster.records.ids import label_id
from rlhf_dagster.records.machines import by_machine
from rlhf_dagster.records.outcome import best, to_canonical
from rlhf_dagster.records.schemas import LABELS, QUARANTINE
from rlhf_dagster.records.tables import Row, frame_of, records, sorted_table, table_of

STOP_REASONS = 3
"""How many of the reasons to stop the training are counted with the labels."""
_STATUSES = frozenset(get_args(Status))
_ANSWERS_KNOWN = 1000
_ASKED = ("round", "kind", "purpose", "display_order")
"""The columns of COMPARISONS that the reading of an annotation depends on."""


class StopRequest(NamedTuple):
    """A label whose annotator asks to stop the training."""

    position: int
    annotator: str
    reason: str


@dataclass(frozen=True)
class Problem:
    """Why an annotation cannot be used."""

    reason: str


def parse(annotation: Annotation, comparison: Row, settings: LabelingSettings | None = None) -> Row | Problem:
    """The row of LABELS for one annotation version of ``comparison`` (a row of COMPARISONS).

    The forms of a result are those of :mod:`rlhf_dagster.labeling.forms`. Of ``settings`` only the order of
    ``rating_axes`` matters, whose first decides the ranks: labels given before an axis was added stay readable.
    ``latest`` is True here; :func:`labels_table`, which sees the other versions, corrects it.
    """
    return _parsed(annotation, comparison, lambda result, asked: _said(result, asked, settings))


def _parsed(annotation: Annotation, comparison: Row, say: Callable[[Any, Row], Row | Problem]) -> Row | Problem:
    if annotation.status not in _STATUSES:
        return Problem(f"The status is {str(annotation.status)[:40]!r}, not submitted, skipped or deleted.")
    row = _row(annotation, comparison)
    if annotation.status != "submitted":
        return row
    said = say(annotation.result, comparison)
    return said if isinstance(said, Problem) else row | said


def _said(result: Any, comparison: Row, settings: LabelingSettings | None) -> Row | Problem:
    """The columns of LABELS that say what was answered."""
    try:
        answer = read_answer(result, comparison, settings.rating_axes if settings else ())
        extras = read_extras(result)
        shown = read_order(result, len(comparison["display_order"]))
    except UnreadableError as error:
        return Problem(str(error))
    order = comparison["display_order"]
    axes = {axis: to_canonical(values, order) for axis, values in answer.axes.items()}
    said = extras | {"text": answer.text, "axes": json.dumps(axes, sort_keys=True) if axes else ""}
    said["display_order"] = shown
    if answer.ranks is None:
        return said
    ranks = to_canonical(answer.ranks, order)
    return said | {"ranks": ranks, "chosen_position": _chosen_position(ranks, order if shown is None else shown)}


def labels_table(
    annotations: Iterable[Annotation],
    comparisons: pd.DataFrame | Iterable[Row],
    settings: LabelingSettings | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every annotation version as a row of LABELS or, where it cannot be read, of QUARANTINE; see :func:`parse`.

    Both are in the order of annotation ids and versions. ``latest`` marks the last version of each annotation. A
    version that is skipped, deleted or unreadable still replaces the earlier ones: what its annotator took back does
    not count. Of ``annotations`` and of rows of ``comparisons`` only some are held at once.
    """
    reading = _Reading(_asked(comparisons), settings)
    frame = frame_of(sorted_table(table_of(reading.labels(annotations), LABELS), ["annotation_id", "version"]))
    frame["latest"] = _are_latest(frame, reading.edited)
    quarantine = [row for *_, row in sorted(reading.quarantine, key=lambda one: one[:2])]
    return frame, frame_of(table_of(quarantine, QUARANTINE))


def readable_labels(annotations: Iterable[Annotation], comparisons: pd.DataFrame) -> pd.DataFrame:
    """The first table of :func:`labels_table` alone."""
    return labels_table(annotations, comparisons)[0]


def _asked(comparisons: pd.DataFrame | Iterable[Row]) -> dict[str, Row]:
    """What the reading of an annotation depends on, by comparison id; equal ones are one row."""
    rows = records(comparisons[["comparison_id", *_ASKED]]) if isinstance(comparisons, pd.DataFrame) else comparisons
    known: dict[tuple[Any, ...], Row] = {}
    asked: dict[str, Row] = {}
    for row in rows:
        order = [int(place) for place in row["display_order"]]
        about = {name: row[name] for name in _ASKED} | {"display_order": order}
        asked[row["comparison_id"]] = known.setdefault((*(row[name] for name in _ASKED[:-1]), *order), about)
    return asked


class _Reading:
    """Annotations on their way to rows, and what is only known behind the last of them."""

    def __init__(self, asked: Mapping[str, Row], settings: LabelingSettings | None) -> None:
        self._asked, self._settings = asked, settings
        self.quarantine: list[tuple[str, int, Row]] = []
        """Rows of QUARANTINE, each behind its annotation id and version."""
        self._known: dict[tuple[int, str], Row | Problem] = {}
        self.edited: dict[str, int] = {}
        """The last version of each annotation that has more than one."""

    def labels(self, annotations: Iterable[Annotation]) -> Iterator[Row]:
        """Rows of LABELS, all of them marked as the latest."""
        for annotation in annotations:
            identity, version = annotation.annotation_id, annotation.version
            if version > 1:
                self.edited[identity] = max(version, self.edited.get(identity, 0))
            asked = self._asked.get(annotation.comparison_id)
            row = _parsed(annotation, asked, self._say) if asked else Problem("No such comparison was sent.")
            if isinstance(row, Problem):
                self.quarantine.append((identity, version, _quarantined(annotation, row)))
            else:
                yield row

    def _say(self, result: Any, asked: Row) -> Row | Problem:
        """:func:`_said`, once for the same answer to comparisons that differ in their texts alone."""
        key = (id(asked), repr(result))
        said = self._known.get(key)
        if said is None:
            said = _said(result, asked, self._settings)
            if len(self._known) < _ANSWERS_KNOWN:
                self._known[key] = said
        return said


def _are_latest(labels: pd.DataFrame, edited: Mapping[str, int]) -> np.ndarray:
    """(labels,) bool: whether each is its annotation's last version; ``edited`` has the last ones but the first."""
    newest = [edited.get(identity, 1) for identity in labels["annotation_id"]] if edited else 1
    return labels["version"].to_numpy() >= np.asarray(newest, dtype=np.int64)


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
