"""Annotations to labels: what an annotator answered, read strictly; what cannot be read is kept aside with the reason.

The forms of a result, in display positions counted from 0:

========== ========================================================================
best_of_k  ``{"best": 2}``, or ``{"best": [0, 2]}`` for a tie at the top
pair       ``{"choice": 0}``, ``{"choice": 1}`` or ``{"choice": "tie"}``
any kind   ``{"cannot_decide": true}``
========== ========================================================================

Each may also hold ``reason`` (text), ``strength`` (0 to 1) and ``flags`` (a list of texts).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd

from rlhf_dagster.labeling.outcome import best, ranks_from_best, to_canonical
from rlhf_dagster.labeling.rows import records
from rlhf_dagster.labeling.store import Annotation, LabelCounts, Status
from rlhf_dagster.lineage.ids import label_id
from rlhf_dagster.lineage.schemas import LABELS, QUARANTINE, table

_ANSWERS = {"pair": "choice", "best_of_k": "best"}
_EXTRAS = {"reason", "strength", "flags"}


@dataclass(frozen=True)
class Problem:
    """Why an annotation cannot be used."""

    reason: str


class _UnreadableError(ValueError):
    """Raised inside this module with the sentence that becomes a :class:`Problem`."""


def parse(annotation: Annotation, comparison: Mapping[str, Any]) -> dict[str, Any] | Problem:
    """The row of LABELS for one annotation version of ``comparison`` (a row of COMPARISONS).

    ``latest`` is True here; :func:`labels_table`, which sees the other versions, corrects it.
    """
    if annotation.status not in get_args(Status):
        return Problem(f"The status is {str(annotation.status)[:40]!r}, not submitted, skipped or deleted.")
    row = _row(annotation, comparison)
    if annotation.status != "submitted":
        return row
    try:
        shown = shown_ranks(annotation.result, comparison["kind"], len(comparison["display_order"]))
        extras = _extras(annotation.result)
    except _UnreadableError as error:
        return Problem(str(error))
    if shown is None:
        return row | extras
    chosen = best(shown)
    ranks = to_canonical(shown, comparison["display_order"])
    return row | extras | {"ranks": ranks, "chosen_position": chosen[0] if len(chosen) == 1 else None}


def shown_ranks(result: Any, kind: str, k: int) -> list[int] | None:
    """Ranks of the ``k`` responses in display order; None for ``cannot decide``. Raises ValueError with a sentence."""
    if not isinstance(result, Mapping):
        raise _UnreadableError(f"The result is {_named(result)}, not an object.")
    answer = _ANSWERS[kind]
    unknown = sorted(str(key) for key in set(result) - _EXTRAS - {answer, "cannot_decide"})
    if unknown:
        raise _UnreadableError(f"The result has keys that a {kind} comparison does not: {', '.join(unknown)[:80]}.")
    if (answer in result) == ("cannot_decide" in result):
        raise _UnreadableError(f"The result must have either `{answer}` or `cannot_decide`.")
    if "cannot_decide" in result:
        if result["cannot_decide"] is not True:
            raise _UnreadableError("`cannot_decide` can only be true.")
        return None
    return ranks_from_best(_positions(result[answer], kind, k), k)


def result_of(ranks: Sequence[int] | None, kind: str) -> dict[str, Any]:
    """The result that says ``ranks`` (display order; None: cannot decide): the inverse of :func:`shown_ranks`."""
    if ranks is None:
        return {"cannot_decide": True}
    chosen = best(ranks)
    if kind == "pair":
        return {"choice": chosen[0] if len(chosen) == 1 else "tie"}
    return {"best": chosen[0] if len(chosen) == 1 else chosen}


def labels_table(annotations: Iterable[Annotation], comparisons: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every annotation version as a row of LABELS or, where it cannot be read, of QUARANTINE.

    ``latest`` marks the last version of each annotation. A version that is skipped, deleted or unreadable still
    replaces the earlier ones: what its annotator took back does not count.
    """
    versions = sorted(annotations, key=lambda annotation: (annotation.annotation_id, annotation.version))
    newest = {annotation.annotation_id: annotation.version for annotation in versions}
    known = {row["comparison_id"]: row for row in records(comparisons)}
    labels, quarantine = [], []
    for annotation in versions:
        comparison = known.get(annotation.comparison_id)
        row = parse(annotation, comparison) if comparison else Problem("No such comparison was sent.")
        if isinstance(row, Problem):
            quarantine.append(_quarantined(annotation, row))
        else:
            labels.append(row | {"latest": annotation.version == newest[annotation.annotation_id]})
    return table(labels, LABELS).to_pandas(), table(quarantine, QUARANTINE).to_pandas()


def usable_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """The labels that count: submitted, in their last version, deciding something, one for a person and comparison.

    A label store can hold two annotations by one person on one comparison; the one made last counts.
    """
    usable = labels[labels["latest"] & (labels["status"] == "submitted") & labels["ranks"].notna()]
    ordered = usable.sort_values(["updated_at", "label_id"])
    return ordered.drop_duplicates(["comparison_id", "annotator"], keep="last").sort_values("label_id")


def count_labels(labels: pd.DataFrame, comparisons: pd.DataFrame) -> LabelCounts:
    """What a round's labels (columns of LABELS) amount to."""
    latest = labels[labels["latest"]]
    submitted = latest[latest["status"] == "submitted"].drop_duplicates(["comparison_id", "annotator"])
    judged = submitted["comparison_id"].value_counts()
    given = judged.reindex(comparisons["comparison_id"], fill_value=0).to_numpy()
    return LabelCounts(
        comparisons=len(comparisons),
        labelled=int((given > 0).sum()),
        labels=len(submitted),
        usable=len(usable_labels(labels)),
        skipped=int((latest["status"] == "skipped").sum()),
        complete=int((given >= comparisons["labels_wanted"]).sum()),
    )


def _positions(answer: Any, kind: str, k: int) -> list[int]:
    """The display positions that share rank 1."""
    if kind == "pair" and answer == "tie":
        return [0, 1]
    positions = answer if isinstance(answer, list) and kind == "best_of_k" else [answer]
    if not positions:
        raise _UnreadableError("`best` names no response.")
    for position in positions:
        if isinstance(position, bool) or not isinstance(position, int):
            raise _UnreadableError(f"`{_ANSWERS[kind]}` is {_named(position)}, not a position.")
        if not 0 <= position < k:
            raise _UnreadableError(f"`{_ANSWERS[kind]}` is position {str(position)[:20]} of {k} responses.")
    if len(set(positions)) < len(positions):
        raise _UnreadableError("`best` names a response twice.")
    return positions


def _extras(result: Mapping[str, Any]) -> dict[str, Any]:
    strength, flags, reason = result.get("strength"), result.get("flags", []), result.get("reason", "")
    if strength is not None and (
        isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1
    ):
        raise _UnreadableError("`strength` is not a number between 0 and 1.")
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise _UnreadableError("`flags` is not a list of texts.")
    if not isinstance(reason, str):
        raise _UnreadableError(f"`reason` is {_named(reason)}, not a text.")
    return {"strength": strength, "flags": flags, "reason": reason}


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
    }


def _quarantined(annotation: Annotation, problem: Problem) -> dict[str, Any]:
    return {
        "annotation_id": annotation.annotation_id,
        "comparison_id": annotation.comparison_id,
        "annotator": annotation.annotator,
        "problem": problem.reason,
        "raw": json.dumps(annotation.result, ensure_ascii=False, sort_keys=True, default=str),
    }


def _named(value: Any) -> str:
    """What a wrong value is, in a word."""
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object", float: "a fraction"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
