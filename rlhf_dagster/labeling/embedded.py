"""A label store that is the ledger alone: for simulated annotators and imported judgments, and the ledger of others."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from rlhf_dagster.common.batches import batches
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.counts import RoundCounter, RoundReading
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.contents import (
    annotation_of,
    comparison_of,
    comparisons_of,
    numbered_comparison,
    sendable,
)
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.layout import prepare_tables
from rlhf_dagster.labeling.ledger.parts import ProjectParts
from rlhf_dagster.labeling.ledger.rows import LedgerRows, LedgerState
from rlhf_dagster.labeling.ledger.writer import LedgerWriter, project_name, writing_labels
from rlhf_dagster.labeling.store import Annotation, LabelCounts, SendResult, Submission
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.tables import Row, records

_AT_ONCE = 1000


class LedgerWatch(Protocol):
    """Who keeps in mind, outside of a ledger, what it has been used for."""

    def loop_id(self, state: LedgerState) -> str:
        """The id of the loop that is about to send to the ledger."""

    def was_read(self, state: LedgerState) -> None:
        """A round's annotations were read, or what is new of them was counted, when the ledger was in this state."""


class EmbeddedLabelStore:
    """A :class:`~rlhf_dagster.labeling.store.LabelStore` in the file or at the address ``place``.

    Every operation is one short transaction on its own connection, so threads, forks and other processes can work on
    it at the same time. Annotations are append-only: an edit, a skip and a deletion are new versions.

    Writers take turns, so positions become visible in their order, and reading on from a position misses nothing; see
    :class:`~rlhf_dagster.labeling.ledger.writer.LedgerWriter`. Rows are checked against their digests, and a round
    that is read whole against its totals: what is damaged raises
    :class:`~rlhf_dagster.labeling.ledger.database.LedgerDamaged`.
    """

    def __init__(self, place: Path | str | LedgerAddress, watch: LedgerWatch | None = None) -> None:
        """``watch`` is told of what is sent and read."""
        self.address, self._watch = LedgerAddress.of(place), watch
        self._database = Database(self.address)
        prepare_tables(self._database)

    @property
    def path(self) -> Path:
        """The ledger's file. Raises UserError for one that is in a database server."""
        if self.address.path is None:
            raise UserError(f"The ledger {self.address} is in no file.")
        return self.address.path

    @property
    def identity(self) -> str:
        """Made at random with the ledger; copies have it too."""
        return self.state().identity

    def position(self) -> int:
        """The last position given out to an annotation version, whichever round it is of."""
        return self.state().position

    def state(self) -> LedgerState:
        with self._database.reading() as connection:
            return self._rows(connection).state()

    def annotators(self) -> list[str]:
        """Everybody who has ever annotated, each once."""
        with self._database.reading() as connection:
            return self._rows(connection).annotators()

    def continue_after(self, position: int) -> None:
        """Give out no position up to this one, so that none is used twice after a restored backup."""
        with writing_labels(self._database) as writer:
            writer.continue_after(position)

    def exclusive(self, name: str, folder: Path) -> AbstractContextManager[None]:
        """A lock that one process at a time holds: by the database server, or by a file in ``folder``."""
        return self._database.exclusive(name, folder)

    def exclusive_at_once(self, name: str, folder: Path) -> AbstractContextManager[bool]:
        """The same without waiting: False where another process holds the lock."""
        return self._database.exclusive_at_once(name, folder)

    def send(self, comparisons: pd.DataFrame) -> SendResult:
        values = [sendable(row) for row in records(comparisons)]
        with self.writing() as writer:
            sent = writer.send(values)
        return SendResult(sent=sent, already_there=len(values) - sent)

    @contextmanager
    def writing(self) -> Iterator[LedgerWriter]:
        """A write transaction for comparisons of the loop and their annotations: all of it is kept, or nothing."""
        loop = self._watch.loop_id(self.state()) if self._watch else ""
        with writing_labels(self._database) as writer:
            if loop:
                writer.claim(loop)
            yield writer

    def count(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        return self.count_read(round_key, purpose, since, self.reading(round_key, purpose))

    def count_read(self, round_key: str, purpose: str, since: int, reading: RoundReading) -> LabelCounts:
        """Like :meth:`count`, for annotations that are read in another way."""
        watch = self._watch.was_read if self._watch else lambda _: None
        return RoundCounter(self._database, reading, watch).count(project_name(round_key, purpose), since)

    def reading(self, round_key: str, purpose: str) -> RoundReading:
        """How a round's annotations are read: as they were submitted."""
        return RoundReading()

    def read(self, round_key: str, purpose: str, since: int | None = None) -> tuple[list[Annotation], int]:
        start = since or 0
        with self._database.reading() as connection:
            found = self._rows(connection)
            rows = found.annotations(project_name(round_key, purpose), start)
            state = found.state()
        if self._watch and since is None:
            self._watch.was_read(state)
        return [annotation_of(row) for row in rows], rows[-1]["position"] if rows else start

    def annotations(self, round_key: str, purpose: str) -> Iterator[Annotation]:
        parts, translate = self._parts(round_key, purpose), self.reading(round_key, purpose).translate

        def read() -> Iterator[Annotation]:
            for part in batches(map(annotation_of, parts.annotations()), _AT_ONCE):
                yield from translate(part)
            if self._watch:
                self._watch.was_read(parts.state)

        return read()

    def comparisons(self, round_key: str, purpose: str) -> pd.DataFrame:
        return comparisons_of(self._parts(round_key, purpose).comparisons())

    def comparison_rows(self, round_key: str, purpose: str) -> Iterator[Row]:
        """The rows of :meth:`comparisons`, of which only some are held at once."""
        return map(numbered_comparison, self._parts(round_key, purpose).comparisons())

    def _parts(self, round_key: str, purpose: str) -> ProjectParts:
        return ProjectParts(self._database, project_name(round_key, purpose))

    def comparisons_after(self, round_key: str, purpose: str, task: int) -> Iterator[dict[str, Any]]:
        """A round's comparisons with a greater task id than ``task``, by it, as rows of COMPARISONS."""
        with self._database.reading() as connection:
            rows = self._rows(connection).comparisons_after(project_name(round_key, purpose), task)
            yield from map(numbered_comparison, rows)

    def size(self, round_key: str, purpose: str) -> tuple[int, int]:
        """Number of a round's comparisons, and position of its last annotation; every addition changes one of them."""
        with self._database.reading() as connection:
            total = self._rows(connection).project(project_name(round_key, purpose))
        return (0, 0) if total is None else (int(total["comparisons"]), int(total["position"]))

    def comparisons_by_id(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The comparisons among ``ids`` that were sent, as rows of COMPARISONS without project and task id."""
        with self._database.reading() as connection:
            found = self._rows(connection).comparisons_by_id(ids)
        return {key: comparison_of(row) for key, row in found.items()}

    def newest(self, annotation_ids: Iterable[str]) -> dict[str, Annotation]:
        """The last version of some annotations; those that are not there are left out."""
        with self._database.reading() as connection:
            found = self._rows(connection).newest(annotation_ids)
        return {key: annotation_of(row) for key, row in found.items()}

    def submit(
        self,
        comparison_id: str,
        annotator: str,
        result: Mapping[str, Any],
        seconds: float | None = None,
        at: datetime | None = None,
    ) -> str:
        """Record an answer and return its annotation id; see :meth:`submit_many`."""
        return self.submit_many([Submission(comparison_id, annotator, result, seconds, at)])[0]

    def skip(self, comparison_id: str, annotator: str, seconds: float | None = None) -> str:
        """Record that an annotator passed over a comparison."""
        return self.submit_many([Submission(comparison_id, annotator, {}, seconds, status="skipped")])[0]

    def delete(self, comparison_id: str, annotator: str) -> str:
        """Record that an annotation was taken back; its earlier versions stay readable."""
        if not self.newest([annotation_id(comparison_id, annotator)]):
            raise UserError(f"{annotator} has no annotation of comparison {comparison_id} to delete.")
        return self.submit_many([Submission(comparison_id, annotator, status="deleted")])[0]

    def submit_many(self, submissions: Iterable[Submission]) -> list[str]:
        ids: list[str] = []

        def answers() -> Iterable[Annotation]:
            for submission in submissions:
                answer = _answer(submission)
                ids.append(answer.annotation_id)
                yield answer

        self.append(answers())
        return ids

    def append(self, annotations: Iterable[Annotation]) -> int:
        """Record what another store holds: each annotation is the next version of its id, unless nothing has changed.

        ``version`` is ignored: versions are counted here. Returns how many were new. An edit may change the annotator
        too.
        """
        with writing_labels(self._database) as writer:
            return writer.append(annotations)

    def _rows(self, connection: Any) -> LedgerRows:
        return LedgerRows(self.address, connection)


def _answer(submission: Submission) -> Annotation:
    identity = annotation_id(submission.comparison_id, submission.annotator)
    at = submission.at or datetime.now(UTC)
    content = (submission.comparison_id, submission.annotator, 1, submission.status, submission.result)
    return Annotation(identity, *content, submission.seconds, created_at=at, updated_at=at)


def annotation_id(comparison_id: str, annotator: str) -> str:
    """The id of a person's annotation of a comparison, the same in every store."""
    return content_hash("annotation", comparison_id, annotator)
