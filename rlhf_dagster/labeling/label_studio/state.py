"""What we know of a Label Studio server, beside the ledger and in its file: projects, tasks, annotations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rlhf_dagster.labeling.database import Database
from rlhf_dagster.labeling.embedded import annotation_id
from rlhf_dagster.records.ids import content_hash

_TABLES = """
CREATE TABLE IF NOT EXISTS ls_projects (
    server TEXT NOT NULL, project INTEGER NOT NULL, round TEXT NOT NULL, purpose TEXT NOT NULL, kind TEXT NOT NULL,
    config TEXT NOT NULL, settings TEXT NOT NULL, labels_wanted INTEGER NOT NULL, unsure INTEGER NOT NULL,
    listed INTEGER NOT NULL DEFAULT 0,
    newest TEXT, newest_seen REAL NOT NULL DEFAULT 0, last_read REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (server, project));
CREATE TABLE IF NOT EXISTS ls_tasks (
    server TEXT NOT NULL, task INTEGER NOT NULL, project INTEGER NOT NULL, comparison_id TEXT NOT NULL,
    overlap INTEGER NOT NULL, updated_at TEXT NOT NULL DEFAULT '', gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (server, task));
CREATE TABLE IF NOT EXISTS ls_people (
    server TEXT NOT NULL, user INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (server, user));
CREATE TABLE IF NOT EXISTS ls_store (id TEXT NOT NULL);
INSERT INTO ls_store SELECT hex(randomblob(8)) WHERE NOT EXISTS (SELECT 1 FROM ls_store);
CREATE INDEX IF NOT EXISTS ls_tasks_by_project ON ls_tasks (server, project);
CREATE TABLE IF NOT EXISTS ls_annotations (
    server TEXT NOT NULL, annotation INTEGER NOT NULL, task INTEGER NOT NULL, annotation_id TEXT NOT NULL,
    comparison_id TEXT NOT NULL, gone INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (server, annotation),
    UNIQUE (server, annotation_id));
CREATE INDEX IF NOT EXISTS ls_annotations_by_task ON ls_annotations (server, task);
CREATE INDEX IF NOT EXISTS ls_annotations_by_comparison ON ls_annotations (server, comparison_id);
"""


@dataclass(frozen=True)
class Project:
    """A project of ours on the server."""

    project: int
    round: str
    purpose: str
    kind: str
    config: str
    """Hash of its labelling config."""
    settings: str
    """What the labelling config was made from (LabelingSettings as JSON)."""
    labels_wanted: int
    """Annotations that a task gets unless it says otherwise."""
    unsure: bool
    """An import was begun whose outcome is not on record, so the tasks must be listed."""
    listed: int
    """Tasks that the server had when they were last listed, those that are not ours included."""
    newest: str | None
    """Time of the newest change that was read, by the server's clock (ISO 8601)."""
    newest_seen: float
    """When ``newest`` was first read, in seconds by our clock."""
    last_read: float
    """When changes were last read."""


@dataclass(frozen=True)
class SentTask:
    task: int
    project: int
    comparison_id: str
    overlap: int
    updated_at: str
    """Time of the task's last change that was read, by the server's clock."""


@dataclass(frozen=True)
class KnownAnnotation:
    """An annotation of the server's and what it is called here."""

    annotation: int
    task: int
    annotation_id: str
    comparison_id: str
    gone: bool


_PROJECT = (
    "project, round, purpose, kind, config, settings, labels_wanted, unsure, listed, newest, newest_seen, last_read"
)


class SyncState:
    """Records of one server, ``server`` being its address."""

    def __init__(self, path: Path, server: str) -> None:
        self._database, self._server = Database(path, _TABLES), server

    @property
    def store_id(self) -> str:
        """Tells this loop's projects from those of another loop of the same name."""
        with self._database.connection() as connection:
            return str(connection.execute("SELECT id FROM ls_store").fetchone()[0])

    def servers(self, round_key: str, purpose: str) -> list[str]:
        """The servers that a round was sent to."""
        query = "SELECT DISTINCT server FROM ls_projects WHERE round = ? AND purpose = ? ORDER BY server"
        with self._database.connection() as connection:
            return [row[0] for row in connection.execute(query, (round_key, purpose))]

    def projects(self, round_key: str, purpose: str) -> list[Project]:
        """Projects of a round, oldest first."""
        query = f"SELECT {_PROJECT} FROM ls_projects WHERE server = ? AND round = ? AND purpose = ? ORDER BY project"  # noqa: S608
        with self._database.connection() as connection:
            return [Project(*row) for row in connection.execute(query, (self._server, round_key, purpose))]

    def add_project(
        self, project: int, key: tuple[str, str, str], config: str, settings: str, labels_wanted: int, unsure: bool
    ) -> None:
        """Record a project; ``key`` is round, purpose and kind, ``unsure`` says that it may hold tasks already."""
        self._execute(
            "INSERT OR IGNORE INTO ls_projects "
            "(server, project, round, purpose, kind, config, settings, labels_wanted, unsure) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self._server, project, *key, config, settings, labels_wanted, unsure),
        )

    def set_unsure(self, project: int, unsure: bool) -> None:
        statement = "UPDATE ls_projects SET unsure = ? WHERE server = ? AND project = ?"
        self._execute(statement, (unsure, self._server, project))

    def set_listed(self, project: int, tasks: int) -> None:
        self._execute(
            "UPDATE ls_projects SET listed = ? WHERE server = ? AND project = ?", (tasks, self._server, project)
        )

    def set_read(self, project: Project, newest: str | None, at: float) -> None:
        """Changes up to ``newest`` have been read, beginning at ``at``."""
        seen = project.newest_seen if newest == project.newest else at
        statement = "UPDATE ls_projects SET newest = ?, newest_seen = ?, last_read = ? WHERE server = ? AND project = ?"
        self._execute(statement, (newest, seen, at, self._server, project.project))

    def tasks(self, project: int) -> dict[int, SentTask]:
        """Tasks that are there, by id, in the order of ids."""
        query = (
            "SELECT task, project, comparison_id, overlap, updated_at FROM ls_tasks "
            "WHERE server = ? AND project = ? AND NOT gone ORDER BY task"
        )
        with self._database.connection() as connection:
            return {row["task"]: SentTask(*row) for row in connection.execute(query, (self._server, project))}

    def add_tasks(self, project: int, comparisons: Mapping[int, str], overlap: int, sure: bool = False) -> None:
        """Record tasks; ``sure`` says that they are all tasks of an import, whose outcome is known now."""
        rows = [(self._server, task, project, comparison, overlap) for task, comparison in comparisons.items()]
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO ls_tasks (server, task, project, comparison_id, overlap) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET gone = 0",
                rows,
            )
            if sure:
                statement = "UPDATE ls_projects SET unsure = 0, listed = listed + ? WHERE server = ? AND project = ?"
                connection.execute(statement, (len(rows), self._server, project))

    def set_overlap(self, task: int, overlap: int) -> None:
        self._execute("UPDATE ls_tasks SET overlap = ? WHERE server = ? AND task = ?", (overlap, self._server, task))

    def set_updated(self, times: Mapping[int, str]) -> None:
        """Record the time of each task's last change that was read."""
        rows = [(at, self._server, task) for task, at in times.items()]
        self._execute_many("UPDATE ls_tasks SET updated_at = ? WHERE server = ? AND task = ?", rows)

    def set_tasks_gone(self, tasks: Iterable[int]) -> None:
        rows = [(self._server, task) for task in tasks]
        self._execute_many("UPDATE ls_tasks SET gone = 1 WHERE server = ? AND task = ?", rows)

    def annotations(self, tasks: Iterable[int]) -> list[KnownAnnotation]:
        """Annotations of some tasks, those gone included."""
        query = (
            "SELECT annotation, task, annotation_id, comparison_id, gone FROM ls_annotations "
            "WHERE server = ? AND task = ?"
        )
        with self._database.connection() as connection:
            rows = [row for task in tasks for row in connection.execute(query, (self._server, task))]
        return [KnownAnnotation(*row) for row in rows]

    def identify(self, found: Iterable[tuple[int, int, str, str]]) -> dict[int, str]:
        """Our id for each annotation (its id, its task, the comparison, the annotator), the same for ever.

        A person's first annotation of a comparison has the id that it has in every label store.
        """
        ids: dict[int, str] = {}
        insert = (
            "INSERT OR IGNORE INTO ls_annotations (server, annotation, task, annotation_id, comparison_id) "
            "VALUES (?, ?, ?, ?, ?)"
        )
        query = "SELECT annotation_id FROM ls_annotations WHERE server = ? AND annotation = ?"
        with self._database.transaction() as connection:
            for annotation, task, comparison, annotator in found:
                further = content_hash("annotation", comparison, annotator, annotation)
                for name in (annotation_id(comparison, annotator), further):
                    connection.execute(insert, (self._server, annotation, task, name, comparison))
                ids[annotation] = connection.execute(query, (self._server, annotation)).fetchone()[0]
        return ids

    def settings_of(self, round_key: str, purpose: str) -> dict[str, str]:
        """The settings (JSON) of the page on which each comparison was judged."""
        query = (
            "SELECT t.comparison_id, p.settings FROM ls_tasks t JOIN ls_projects p USING (server, project) "
            "WHERE p.round = ? AND p.purpose = ? ORDER BY t.gone DESC"
        )
        with self._database.connection() as connection:
            return {row[0]: row[1] for row in connection.execute(query, (round_key, purpose))}

    def names(self) -> dict[int, str]:
        """What each user seen so far is called in our tables, for ever: an e-mail address can change."""
        query = "SELECT user, name FROM ls_people WHERE server = ?"
        with self._database.connection() as connection:
            return {row[0]: row[1] for row in connection.execute(query, (self._server,))}

    def add_names(self, names: Mapping[int, str]) -> None:
        rows = [(self._server, user, name) for user, name in names.items()]
        self._execute_many("INSERT OR IGNORE INTO ls_people VALUES (?, ?, ?)", rows)

    def set_annotations_gone(self, annotations: Iterable[int]) -> None:
        rows = [(self._server, annotation) for annotation in annotations]
        self._execute_many("UPDATE ls_annotations SET gone = 1 WHERE server = ? AND annotation = ?", rows)

    def on_comparison(self, comparison: str) -> dict[str, int]:
        """The server's ids of the annotations of a comparison that are there, by our ids."""
        query = (
            "SELECT annotation_id, annotation FROM ls_annotations WHERE server = ? AND comparison_id = ? AND NOT gone"
        )
        with self._database.connection() as connection:
            return {row[0]: int(row[1]) for row in connection.execute(query, (self._server, comparison))}

    def _execute(self, statement: str, values: tuple[object, ...]) -> None:
        self._execute_many(statement, [values])

    def _execute_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(statement, rows)


def moment(text: str) -> datetime:
    """A time as the server writes it, which leaves microseconds out where they are 0."""
    return datetime.fromisoformat(text)
