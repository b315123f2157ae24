"""What the page of all rounds says of each annotator, from the figures of every round."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from rlhf_dagster.common.intervals import share_with_interval
from rlhf_dagster.pages.rounds import AnnotatorRow, ShownRate


def annotator_rows(quality: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[AnnotatorRow]:
    """One row for each annotator from the rows of `label_quality` by round, newest round first.

    Shares are those of all judgments of the rounds together, with their Wilson interval. Annotators flagged for review
    come first, then those who gave most labels.
    """
    given: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for key, rows in quality.items():
        for row in rows:
            given.setdefault(row["annotator"], []).append((key, row))
    found = [_annotator(name, rounds) for name, rounds in given.items()]
    return sorted(found, key=lambda row: (not row.review, -row.labels, row.annotator))


def machine_rows(quality: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[AnnotatorRow]:
    """One row for each machine from the figures of `label_quality` by round, newest round first; pooled as people's."""
    given: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for key, rows in quality.items():
        for row in rows:
            given.setdefault(row["annotator"], []).append((key, row))
    return [_machine(name, rounds) for name, rounds in sorted(given.items())]


def _machine(name: str, rounds: Sequence[tuple[str, Mapping[str, Any]]]) -> AnnotatorRow:
    rows = [row for _, row in rounds]
    figures = {what: [row.get(what) or {} for row in rows] for what in ("agreement", "gold", "first_position")}
    pooled = {what: _pooled((one.get("value"), one.get("n")) for one in found) for what, found in figures.items()}
    if first := pooled["first_position"]:
        chances = [(one["chance"], one["n"]) for one in figures["first_position"] if one]
        first = {**first, "chance": sum(chance * n for chance, n in chances) / sum(n for _, n in chances)}
    labels = sum(row["labels"] for row in rows)
    return AnnotatorRow(name, len(rounds), rounds[0][0], labels, pooled["agreement"], pooled["gold"], first)


def _annotator(name: str, rounds: Sequence[tuple[str, Mapping[str, Any]]]) -> AnnotatorRow:
    (latest, newest), rows = rounds[0], [row for _, row in rounds]
    return AnnotatorRow(
        annotator=name,
        rounds=len(rounds),
        latest=latest,
        labels=sum(row["labels"] for row in rows),
        agreement=_pooled([(row.get("agreement"), row.get("agreement_n")) for row in rows]),
        gold=_pooled([(row.get("gold_accuracy"), row.get("gold_n")) for row in rows]),
        first_position=_first_position(rows),
        competence=newest.get("competence"),
        review=newest.get("review") or "",
    )


def _pooled(shares: Iterable[tuple[float | None, int | None]]) -> ShownRate | None:
    """The share of all observations, from (share, observations) of each round."""
    known = [(share, n) for share, n in shares if share is not None and n]
    return share_with_interval(sum(round(share * n) for share, n in known), sum(n for _, n in known))


def _first_position(rows: Sequence[Mapping[str, Any]]) -> ShownRate | None:
    known = [row for row in rows if row.get("first_position_share") is not None]
    numbers = [observations(*(row[f"first_position_{name}"] for name in ("share", "low", "high"))) for row in known]
    pooled = _pooled((row["first_position_share"], n) for row, n in zip(known, numbers, strict=True))
    if pooled is None:
        return None
    chance = sum(row["chance_first"] * n for row, n in zip(known, numbers, strict=True)) / sum(numbers)
    return {**pooled, "chance": chance}


def observations(share: float, low: float, high: float) -> int:
    """The n behind a share and its 95% Wilson interval, for tables that hold the interval without it.

    The width w of the interval (:func:`intervals.wilson`) is 2 z sqrt(p q / n + z^2 / 4 n^2) / (1 + z^2 / n). Squared,
    it is a quadratic in x = 1 / n, z^4 (w^2 - 1) x^2 + 2 z^2 (w^2 - 2 p q) x + w^2 = 0, with one positive root.
    """
    z2, width2 = NormalDist().inv_cdf(0.975) ** 2, (high - low) ** 2
    a, half_b = z2 * z2 * (width2 - 1), z2 * (width2 - 2 * share * (1 - share))
    # The form of the root that does not subtract nearly equal numbers, whichever sign half_b has.
    root = math.sqrt(half_b * half_b - a * width2)
    inverse = (half_b + root) / -a if half_b > 0 else width2 / (root - half_b)
    return round(1 / inverse)
