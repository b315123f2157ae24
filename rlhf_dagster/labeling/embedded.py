"""A label store in one SQLite file: for simulated annotators and imported judgments, and the ledger of other stores."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.counts import COUNT_TABLES, CountCache
from rlhf_dagster.labeling.database import Database
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.store import Annotation, LabelCounts, SendResult, Submission
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.schemas import COMPARISONS, table
from rlhf_dagster.records.tables import records

_LATER_COLUMNS = {"role": "label", "gold_ranks": None, "repeat_of": ""}
"""Values of columns that comparisons stored by older versions do not have."""
_TABLES = """
CREATE TABLE IF NOT EXISTS projects (
    project TEXT PRIMARY KEY, round TEXT NOT NULL, purpose TEXT NOT NULL, UNIQUE (round, purpose));
CREATE TABLE IF NOT EXISTS comparisons (
    task_id INTEGER PRIMARY KEY AUTOINCREMENT, comparison_id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL REFERENCES projects, content TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS comparisons_by_project ON comparisons (project);
CREATE TABLE IF NOT EXISTS annotations (
    position INTEGER PRIMARY KEY AUTOINCREMENT, annotation_id TEXT NOT NULL, version INTEGER NOT NULL,
    comparison_id TEXT NOT NULL REFERENCES comparisons (comparison_id), annotator TEXT NOT NULL, status TEXT NOT NULL,
    result TEXT NOT NULL, seconds REAL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (annotation_id, version));
CREATE INDEX IF NOT EXISTS annotations_by_comparison ON annotations (comparison_id);
CREATE TRIGGER IF NOT EXISTS annotations_are_never_changed BEFORE UPDATE ON annotations
    BEGIN SELECT RAISE (ABORT, 'annotations are append-only'); END;
CREATE TRIGGER IF NOT EXISTS annotations_are_never_removed BEFORE DELETE ON annotations
    BEGIN SELECT RAISE (ABORT, 'annotations are append-only'); END;
CREATE TABLE IF NOT EXISTS sizes (project TEXT PRIMARY KEY, comparisons INTEGER NOT NULL, position INTEGER NOT NULL);
INSERT OR IGNORE INTO sizes SELECT c.project, COUNT(DISTINCT c.comparison_id), IFNULL(MAX(a.position), 0)
    FROM comparisons c LEFT JOIN annotations a USING (comparison_id) GROUP BY c.project;
CREATE TRIGGER IF NOT EXISTS comparisons_are_counted AFTER INSERT ON comparisons
    BEGIN INSERT INTO sizes VALUES (NEW.project, 1, 0) ON CONFLICT DO UPDATE SET comparisons = comparisons + 1; END;
CREATE TRIGGER IF NOT EXISTS annotations_are_counted AFTER INSERT ON annotations
    BEGIN UPDATE sizes SET position = NEW.position
        WHERE project = (SELECT project FROM comparisons WHERE comparison_id = NEW.comparison_id); END;
"""
"""``sizes`` is kept by triggers, so that asking whether anything is new takes the same time however much there is."""
_READ = """
SELECT a.* FROM annotations a JOIN comparisons c USING (comparison_id)
WHERE c.project = ? AND a.position > ? ORDER BY a.position
"""
_NEWEST = "SELECT * FROM annotations WHERE annotation_id = ? ORDER BY version DESC LIMIT 1"
_INSERT = """
INSERT INTO annotations
    (annotation_id, version, comparison_id, annotator, status, result, seconds, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class EmbeddedLabelStore:
    """A :class:`~rlhf_dagster.labeling.store.LabelStore` in the file ``path``.

    Every operation is one short transaction on its own connection, so threads, forks and other processes can work on
    the file at the same time. Annotations are append-only: an edit, a skip and a deletion are new versions.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _TABLES + COUNT_TABLES)

    @property
    def path(self) -> Path:
        return self._database.path

    def send(self, comparisons: pd.DataFrame) -> SendResult:
        rows = records(comparisons)
        projects = sorted({(row["round"], row["purpose"]) for row in rows})
        values = [(row["comparison_id"], _project(row["round"], row["purpose"]), _content(row)) for row in rows]
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO projects VALUES (?, ?, ?)", [(_project(*key), *key) for key in projects]
            )
            sent = connection.executemany(
                "INSERT OR IGNORE INTO comparisons (comparison_id, project, content) VALUES (?, ?, ?)", values
            ).rowcount
        return SendResult(sent=sent, already_there=len(rows) - sent)

    def count(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        return self.count_read(round_key, purpose, since, lambda: self.read(round_key, purpose)[0])

    def count_read(self, round_key: str, purpose: str, since: int, read: Callable[[], list[Annotation]]) -> LabelCounts:
        """Like :meth:`count`, for the annotations that ``read`` returns; it is called only if something is new."""

        def labels() -> tuple[pd.DataFrame, pd.DataFrame]:
            comparisons = self.comparisons(round_key, purpose)
            return labels_table(read(), comparisons)[0], comparisons

        of = str(self.size(round_key, purpose))
        return CountCache(self._database).get(_project(round_key, purpose), of, since, labels)

    def read(self, round_key: str, purpose: str, since: int | None = None) -> tuple[list[Annotation], int]:
        start = since or 0
        with self._database.connection() as connection:
            rows = connection.execute(_READ, (_project(round_key, purpose), start)).fetchall()
        return [_annotation(row) for row in rows], rows[-1]["position"] if rows else start

    def comparisons(self, round_key: str, purpose: str) -> pd.DataFrame:
        query = "SELECT task_id, project, content FROM comparisons WHERE project = ? ORDER BY task_id"
        with self._database.connection() as connection:
            rows = connection.execute(query, (_project(round_key, purpose),)).fetchall()
        filled = [
            _LATER_COLUMNS | json.loads(row["content"]) | {"project": row["project"], "task_id": str(row["task_id"])}
            for row in rows
        ]
        return table(filled, COMPARISONS).to_pandas()

    def size(self, round_key: str, purpose: str) -> tuple[int, int]:
        """Number of a round's comparisons, and position of its last annotation; every addition changes one of them."""
        query = "SELECT comparisons, position FROM sizes WHERE project = ?"
        with self._database.connection() as connection:
            row = connection.execute(query, (_project(round_key, purpose),)).fetchone()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def comparisons_by_id(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The comparisons among ``ids`` that were sent, as rows of COMPARISONS without project and task id."""
        query = "SELECT content FROM comparisons WHERE comparison_id = ?"
        with self._database.connection() as connection:
            found = [row for key in ids for row in connection.execute(query, (key,))]
        rows = [_LATER_COLUMNS | json.loads(row["content"]) for row in found]
        return {row["comparison_id"]: row for row in rows}

    def newest(self, annotation_ids: Iterable[str]) -> dict[str, Annotation]:
        """The last version of some annotations; those that are not there are left out."""
        with self._database.connection() as connection:
            found = [connection.execute(_NEWEST, (key,)).fetchone() for key in annotation_ids]
        return {row["annotation_id"]: _annotation(row) for row in found if row is not None}

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
        identity = annotation_id(comparison_id, annotator)
        with self._database.connection() as connection:
            if connection.execute(_NEWEST, (identity,)).fetchone() is None:
                raise UserError(f"{annotator} has no annotation of comparison {comparison_id} to delete.")
        return self.submit_many([Submission(comparison_id, annotator, status="deleted")])[0]

    def submit_many(self, submissions: Iterable[Submission]) -> list[str]:
        with self._database.transaction() as connection:
            return [_record(connection, submission) for submission in submissions]

    def append(self, annotations: Iterable[Annotation]) -> int:
        """Record what another store holds: each annotation is the next version of its id, unless nothing has changed.

        ``version`` is ignored: versions are counted here. Returns how many were new. An edit may change the annotator
        too.
        """
        with self._database.transaction() as connection:
            return sum(_append(connection, annotation) for annotation in annotations)


def _record(connection: sqlite3.Connection, submission: Submission) -> str:
    identity = annotation_id(submission.comparison_id, submission.annotator)
    at = submission.at or datetime.now(UTC)
    content = (submission.comparison_id, submission.annotator, 1, submission.status, submission.result)
    _append(connection, Annotation(identity, *content, submission.seconds, created_at=at, updated_at=at))
    return identity


def _append(connection: sqlite3.Connection, annotation: Annotation) -> bool:
    """Add a version, unless the newest one says the same; returns whether it was added."""
    result = json.dumps(annotation.result, sort_keys=True, ensure_ascii=False)
    newest = connection.execute(_NEWEST, (annotation.annotation_id,)).fetchone()
    said = (annotation.annotator, annotation.status, result)
    if newest is not None and (newest["annotator"], newest["status"], newest["result"]) == said:
        return False
    version = 1 if newest is None else newest["version"] + 1
    created_at = _stamp(annotation.created_at) if newest is None else newest["created_at"]
    key = (annotation.annotation_id, version, annotation.comparison_id, annotation.annotator, annotation.status)
    try:
        connection.execute(_INSERT, (*key, result, annotation.seconds, created_at, _stamp(annotation.updated_at)))
    except sqlite3.IntegrityError:
        raise UserError(
            f"There is no comparison {annotation.comparison_id} in the label store; send it first."
        ) from None
    return True


def _annotation(row: sqlite3.Row) -> Annotation:
    return Annotation(
        annotation_id=row["annotation_id"],
        comparison_id=row["comparison_id"],
        annotator=row["annotator"],
        version=row["version"],
        status=row["status"],
        result=json.loads(row["result"]),
        seconds=row["seconds"],
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        position=row["position"],
    )


def annotation_id(comparison_id: str, annotator: str) -> str:
    """The id of a person's annotation of a comparison, the same in every store."""
    return content_hash("annotation", comparison_id, annotator)


def _project(round_key: str, purpose: str) -> str:
    return f"{round_key}/{purpose}"


def _content(row: Mapping[str, Any]) -> str:
    """A comparison as JSON; lists that came out of Parquet are arrays."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value for name, value in row.items()
    }
    return json.dumps(plain, ensure_ascii=False)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
