"""Counts of a round's labels, kept beside the ledger: only comparisons on which something is new are counted again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.changed import ChangedPart, VersionCounts
from rlhf_dagster.labeling.ledger.contents import annotation_of, comparisons_of
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.digests import added, digest
from rlhf_dagster.labeling.ledger.rows import LedgerRow, LedgerRows, LedgerState
from rlhf_dagster.labeling.ledger.tables import TALLIES
from rlhf_dagster.labeling.parse import StopRequest, readable_labels
from rlhf_dagster.labeling.store import Annotation, LabelCounts
from rlhf_dagster.labeling.tally import LabelTally
from rlhf_dagster.records.ids import content_hash

_FEW = 0.25
"""Where a greater part of a round's annotations is new, counting all of them is faster."""
_BLOBS = ("positions", "times", "held")
_NOTHING = dict.fromkeys(("comparisons", "comparison_sum", "annotations", "annotation_sum", "position"), 0)


@dataclass(frozen=True)
class RoundReading:
    """How a round's annotations are read: by default as they are."""

    translate: Callable[[Sequence[Annotation]], Sequence[Annotation]] = lambda annotations: annotations
    depends_on: str = ""
    """What this depends on beside the annotations and the comparisons; counts of another reading are not used."""


@dataclass(frozen=True)
class _Moment:
    """How far a project's annotations had come: its totals."""

    annotations: int
    annotation_sum: int
    position: int

    @classmethod
    def of(cls, total: LedgerRow) -> "_Moment":
        return cls(*(int(total[name]) for name in ("annotations", "annotation_sum", "position")))


@dataclass(frozen=True)
class _Kept:
    tally: LabelTally
    held: VersionCounts
    at: _Moment


class RoundCounter:
    """Counts rounds of the ledger ``database``; what was kept of the counts and is damaged is counted anew.

    ``watch`` is told the ledger's state after something was read to be counted.
    """

    def __init__(self, database: Database, reading: RoundReading, watch: Callable[[LedgerState], None]) -> None:
        self._database, self._reading, self._watch = database, reading, watch

    def count(self, project: str, since: int) -> LabelCounts:
        """Counts of a project; ``new`` counts the labels after position ``since``.

        Counts made by another release of this package are not used. Raises
        :class:`~rlhf_dagster.labeling.ledger.database.LedgerDamaged` for rows that are.
        """
        state: LedgerState | None = None
        with self._database.reading() as connection:  # totals, kept counts and annotations are of one moment
            rows = LedgerRows(self._database.address, connection)
            total = rows.project(project) or _NOTHING
            of, now = self._of(total), _Moment.of(total)
            kept = _kept(connection, project, of)
            if kept is None or kept.at != now:
                kept = (kept and self._followed(rows, project, kept, now)) or self._whole(rows, project, now)
                state = rows.state()
        if state is not None:
            self._watch(state)
            self._keep(project, of, kept)
        return kept.tally.since(since)

    def _of(self, total: LedgerRow) -> str:
        """What kept counts have to be of, so that they can be gone on with: other things than annotations."""
        return content_hash(_release(), self._reading.depends_on, total["comparisons"], total["comparison_sum"])

    def _whole(self, rows: LedgerRows, project: str, now: _Moment) -> _Kept:
        versions, sent = rows.annotations(project), rows.comparisons(project)
        comparisons = comparisons_of(sent)
        labels = self._labels([annotation_of(row) for row in versions], comparisons)
        return _Kept(LabelTally.of(labels, comparisons), VersionCounts.of(sent, versions), now)

    def _followed(self, rows: LedgerRows, project: str, kept: _Kept, now: _Moment) -> _Kept | None:
        """What is to be kept now, from what was kept and what has come since; None where all has to be counted."""
        if not 0 < now.annotations - kept.at.annotations <= _FEW * now.annotations:
            return None
        new = rows.annotations(project, kept.at.position)
        part = ChangedPart.read(rows, project, new, kept.held)
        if part is None or _after(kept.at, new) != now:
            return None
        comparisons, annotations = comparisons_of(part.comparisons), [annotation_of(row) for row in part.versions]
        labels = self._labels(annotations, comparisons)
        before = LabelTally.of(_as_of(labels, annotations, kept.at.position), comparisons)
        tally = kept.tally.changed(before, LabelTally.of(labels, comparisons))
        return None if tally is None else _Kept(tally, kept.held.changed(part), now)

    def _labels(self, annotations: Sequence[Annotation], comparisons: pd.DataFrame) -> pd.DataFrame:
        return readable_labels(self._reading.translate(annotations), comparisons)

    def _keep(self, project: str, of: str, kept: _Kept) -> None:
        tally = kept.tally
        counts = {"counts": asdict(tally.counts), "requests": tally.requests, "at": asdict(kept.at)}
        row: dict[str, Any] = {"project": project, "of": of, "counts": json.dumps(counts)}
        blobs = (tally.positions, tally.times, kept.held.as_array())
        row |= {name: blob.tobytes() for name, blob in zip(_BLOBS, blobs, strict=True)}
        row["digest"] = _digest(row)
        insert = self._database.insert(TALLIES).values(row)
        with self._database.remembering() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["project"], set_=row))


def _after(moment: _Moment, new: Sequence[LedgerRow]) -> _Moment:
    """The moment at which these rows had been added."""
    total = added(moment.annotation_sum, (row["digest"] for row in new))
    return _Moment(moment.annotations + len(new), total, new[-1]["position"] if new else moment.position)


def _as_of(labels: pd.DataFrame, annotations: Sequence[Annotation], position: int) -> pd.DataFrame:
    """Labels as they were when the ledger had come to a position; ``annotations`` are also those that are no label."""
    earlier = sorted((one for one in annotations if one.position <= position), key=lambda one: one.version)
    newest = {annotation.annotation_id: annotation.version for annotation in earlier}
    known = labels[labels["position"] <= position]
    return known.assign(latest=known["version"] == known["annotation_id"].map(newest))


def _kept(connection: sa.Connection, project: str, of: str) -> _Kept | None:
    row = connection.execute(sa.select(TALLIES).where(TALLIES.c.project == project)).mappings().first()
    if row is None or row["of"] != of or row["digest"] != _digest(row):
        return None
    positions, times, held = (np.frombuffer(row[name], dtype="<i8") for name in _BLOBS)
    found = json.loads(row["counts"])
    requests = [StopRequest(*request) for request in found["requests"]]
    tally = LabelTally(LabelCounts(**found["counts"]), positions, times, requests)
    return _Kept(tally, VersionCounts.from_array(held), _Moment(**found["at"]))


def _digest(row: Any) -> int:
    blobs = (hashlib.blake2b(row[name] or b"").hexdigest() for name in _BLOBS)
    return digest([row["project"], row["of"], row["counts"], *blobs])


@cache
def _release() -> str:
    return version("rlhf-dagster")
