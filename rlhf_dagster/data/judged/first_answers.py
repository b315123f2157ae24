"""Annotations of which there is one version: what many of them share is made once."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from rlhf_dagster.data.judged.finder import Judged
from rlhf_dagster.data.judged.rows import answer_of, extras_of, listed_order, order_of
from rlhf_dagster.data.line_records import Decision
from rlhf_dagster.labeling.ledger.versions import FirstVersion, result_json, stamp
from rlhf_dagster.records.tables import Row


def first_versions(
    judged: Judged, places: np.ndarray, ids: Sequence[str], people: Sequence[str], at: datetime
) -> Iterator[FirstVersion]:
    """The first and only versions of annotations, from the judgments at some ``places`` among those judged.

    ``ids`` are those of the annotations of all judged, ``people`` the pseudonyms of the batch's annotators; ``at``
    stands for times that lines do not give.
    """
    columns, lines, row_of = judged.batch.columns, judged.lines[places], judged.row_of[places]
    listing_of, decision_of = columns.listing_of[lines], columns.decision_of[lines]
    results = _results(judged, row_of, listing_of, decision_of)
    comparisons = [row.get("comparison_id", "") for row in judged.rows]
    stamps = [stamp(decision.submitted_at or at) for decision in columns.decisions]
    seconds = [None if one.seconds is None else float(one.seconds) for one in columns.decisions]
    each = (places.tolist(), row_of.tolist(), columns.annotator_of[lines].tolist(), decision_of.tolist(), results)
    for place, row, annotator, decision, result in zip(*each, strict=True):
        when = stamps[decision]
        said = (people[annotator], "submitted", result, seconds[decision], when, when)
        yield FirstVersion(ids[place], 1, comparisons[row], *said)


def _results(judged: Judged, row_of: np.ndarray, listing_of: np.ndarray, decision_of: np.ndarray) -> list[str]:
    """What was decided by each of some judgments, as JSON. (judged,) int64 each.

    It depends on the decision, and of the comparison on its kind, its display order and the order listed alone.
    """
    asked, asked_of = _distinct_pairs(row_of, listing_of)
    numbers: dict[tuple[tuple[int, ...], tuple[int, ...], str], int] = {}
    shown: list[tuple[Row, list[int]]] = []
    forms = np.empty(len(asked), dtype=np.int64)
    for place, (number, listing) in enumerate(asked):
        row = judged.rows[number]
        order = listed_order(row, judged.batch.columns.listings[listing])
        forms[place] = numbers.setdefault((tuple(order), tuple(row["display_order"]), row["kind"]), len(shown))
        if len(numbers) > len(shown):
            shown.append((row, order))
    given, given_of = _distinct_pairs(forms[asked_of], decision_of)
    texts = [_text(judged.batch.columns.decisions[decision], *shown[form]) for form, decision in given]
    return [texts[place] for place in given_of.tolist()]


def _text(decision: Decision, row: Row, order: Sequence[int]) -> str:
    return result_json(answer_of(decision, row, order) | extras_of(decision) | order_of(decision, row, order))


def _distinct_pairs(first: np.ndarray, second: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The distinct pairs of numbers from 0 at the same places, and which of them is at each place: (places,) int64."""
    size = int(second.max(initial=0)) + 1
    distinct, of = np.unique(first.astype(np.int64) * size + second, return_inverse=True)
    return list(zip((distinct // size).tolist(), (distinct % size).tolist(), strict=True)), of
