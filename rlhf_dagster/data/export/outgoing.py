"""Judgments on their way out: what tables hold of each, as a line that could come in again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.labeling.quality.position import shown_order
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.outcome import to_display
from rlhf_dagster.records.tables import Row

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class OutgoingJudgment:
    """A judgment, and what a loop says of it beside."""

    line: JudgmentLine
    """Its annotator is a pseudonym, a machine's name or a source."""
    round: str
    split: str = ""
    """Of a data set of preferences: train, validation or held_out_annotators."""
    weight: float | None = None
    """Of its label in training."""
    role: str = "label"
    """Why the comparison was asked."""
    source: str = ""
    """Where the prompt came from."""


def preference_judgments(preferences: pa.Table, axis: str, sources: Mapping[str, str]) -> Iterator[OutgoingJudgment]:
    """The judgments of a table PREFERENCES, which does not say how they were shown.

    ``axis`` is that of its ratings; ``sources`` say by prompt id where prompts came from.
    """
    for row in rows_in(preferences):
        yield OutgoingJudgment(
            JudgmentLine(
                comparison=row["comparison_id"],
                prompt=prompt_of_row(row),
                responses=tuple(row["responses"]),
                annotator=row["annotator"],
                ranks=tuple(row["ranks"]),
                kind=row["kind"],
                order_known=False,
                ratings=_ratings_on(axis, row.get("ratings")) if row["kind"] == "rating" else None,
                strength=row.get("strength"),
                policies=tuple(row["policy_ids"]),
            ),
            round=row["round"],
            split=row["split"],
            weight=row["weight"],
            source=sources.get(row["prompt_id"], ""),
        )


def label_judgments(
    labels: pa.Table, comparisons: pa.Table, sources: Mapping[str, str], counting: np.ndarray
) -> Iterator[OutgoingJudgment]:
    """The judgments in the rows ``counting`` of a table LABELS about comparisons (COMPARISONS); ``sources`` as above.

    Labels of comparisons that are not there are left out: the tables are of the same round.
    """
    # Of a column in several pieces, every taking makes one piece anew.
    labels, comparisons = labels.combine_chunks(), comparisons.combine_chunks()
    places = {name: place for place, name in enumerate(comparisons["comparison_id"].to_pylist())}
    for start in range(0, len(counting), _ROWS_AT_ONCE):
        batch = labels.take(pa.array(counting[start : start + _ROWS_AT_ONCE]))
        rows = [row for row in batch.to_pylist() if row["comparison_id"] in places]
        asked = comparisons.take([places[row["comparison_id"]] for row in rows]).to_pylist()
        yield from (_judgment(row, comparison, sources) for row, comparison in zip(rows, asked, strict=True))


def rows_in(table: pa.Table) -> Iterator[Row]:
    """The rows of a table, of which few are made at a time."""
    for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _judgment(label: Row, comparison: Row, sources: Mapping[str, str]) -> OutgoingJudgment:
    order = shown_order(label, comparison)
    shown = range(len(comparison["responses"])) if order is None else order

    def as_shown(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(to_display(values, shown))

    axes = json.loads(label["axes"]) if label["axes"] else {}
    rated = label["kind"] == "rating" and label["ranks"] is not None
    line = JudgmentLine(
        comparison=_name(comparison),
        prompt=prompt_of_row(comparison),
        responses=as_shown(comparison["responses"]),
        annotator=label["annotator"],
        ranks=None if label["ranks"] is None else as_shown(label["ranks"]),
        kind=label["kind"],
        order_known=order is not None,
        ratings={axis: as_shown(values) for axis, values in axes.items()} if rated else None,
        strength=label["strength"],
        policies=as_shown(comparison["policy_ids"]),
        flags=tuple(label["flags"] or ()),
        reason=label["reason"] or "",
        submitted_at=label["updated_at"],
        seconds=label["seconds"],
        metadata=json.loads(label.get("metadata") or "{}"),
    )
    source = sources.get(comparison["prompt_id"], "")
    return OutgoingJudgment(line, round=label["round"], role=comparison["role"], source=source)


def _name(comparison: Row) -> str:
    """What the comparison is called; one that is asked again must not be taken for the first."""
    named = None if comparison["repeat_of"] else comparison.get("name")
    return str(named or comparison["comparison_id"])


def _ratings_on(axis: str, ratings: Sequence[float] | None) -> Mapping[str, tuple[int, ...]] | None:
    return None if ratings is None else {axis: tuple(int(rating) for rating in ratings)}
