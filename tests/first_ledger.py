"""Ledgers as version 0.1 made them."""

import sqlite3
from contextlib import closing
from pathlib import Path

TABLES = """
CREATE TABLE layouts (layout TEXT NOT NULL);
CREATE TABLE projects (
    project TEXT PRIMARY KEY, round TEXT NOT NULL, purpose TEXT NOT NULL, UNIQUE (round, purpose));
CREATE TABLE comparisons (
    task_id INTEGER PRIMARY KEY AUTOINCREMENT, comparison_id TEXT NOT NULL UNIQUE,
    project TEXT NOT NULL REFERENCES projects, content TEXT NOT NULL);
CREATE INDEX comparisons_by_project ON comparisons (project);
CREATE TABLE annotations (
    position INTEGER PRIMARY KEY AUTOINCREMENT, annotation_id TEXT NOT NULL, version INTEGER NOT NULL,
    comparison_id TEXT NOT NULL REFERENCES comparisons (comparison_id), annotator TEXT NOT NULL, status TEXT NOT NULL,
    result TEXT NOT NULL, seconds REAL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    UNIQUE (annotation_id, version));
CREATE INDEX annotations_by_comparison ON annotations (comparison_id);
CREATE TRIGGER annotations_are_never_changed BEFORE UPDATE ON annotations
    BEGIN SELECT RAISE (ABORT, 'annotations are append-only'); END;
CREATE TRIGGER annotations_are_never_removed BEFORE DELETE ON annotations
    BEGIN SELECT RAISE (ABORT, 'annotations are append-only'); END;
CREATE TABLE ls_projects (
    server TEXT NOT NULL, project INTEGER NOT NULL, round TEXT NOT NULL, purpose TEXT NOT NULL, kind TEXT NOT NULL,
    config TEXT NOT NULL, settings TEXT NOT NULL, labels_wanted INTEGER NOT NULL, unsure INTEGER NOT NULL,
    listed INTEGER NOT NULL DEFAULT 0,
    newest TEXT, newest_seen REAL NOT NULL DEFAULT 0, last_read REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (server, project));
CREATE TABLE ls_tasks (
    server TEXT NOT NULL, task INTEGER NOT NULL, project INTEGER NOT NULL, comparison_id TEXT NOT NULL,
    overlap INTEGER NOT NULL, updated_at TEXT NOT NULL DEFAULT '', gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (server, task));
CREATE TABLE ls_people (
    server TEXT NOT NULL, user INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (server, user));
CREATE TABLE ls_store (id TEXT NOT NULL);
CREATE INDEX ls_tasks_by_project ON ls_tasks (server, project);
CREATE TABLE ls_annotations (
    server TEXT NOT NULL, annotation INTEGER NOT NULL, task INTEGER NOT NULL, annotation_id TEXT NOT NULL,
    comparison_id TEXT NOT NULL, gone INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (server, annotation),
    UNIQUE (server, annotation_id));
CREATE INDEX ls_annotations_by_task ON ls_annotations (server, task);
CREATE INDEX ls_annotations_by_comparison ON ls_annotations (server, comparison_id);
"""
SIZES = """
CREATE TABLE sizes (project TEXT PRIMARY KEY, comparisons INTEGER NOT NULL, position INTEGER NOT NULL);
INSERT INTO sizes SELECT c.project, COUNT(DISTINCT c.comparison_id), IFNULL(MAX(a.position), 0)
    FROM comparisons c LEFT JOIN annotations a USING (comparison_id) GROUP BY c.project;
CREATE TRIGGER comparisons_are_counted AFTER INSERT ON comparisons
    BEGIN INSERT INTO sizes VALUES (NEW.project, 1, 0) ON CONFLICT DO UPDATE SET comparisons = comparisons + 1; END;
CREATE TRIGGER annotations_are_counted AFTER INSERT ON annotations
    BEGIN UPDATE sizes SET position = NEW.position
        WHERE project = (SELECT project FROM comparisons WHERE comparison_id = NEW.comparison_id); END;
CREATE TABLE counts (project TEXT PRIMARY KEY, of TEXT NOT NULL, counts TEXT NOT NULL);
CREATE TABLE counted (
    project TEXT NOT NULL, position INTEGER NOT NULL, updated_at TEXT NOT NULL, PRIMARY KEY (project, position)
) WITHOUT ROWID;
INSERT INTO counts SELECT project, '(0, 0) 0.1', '{"comparisons": 7}' FROM projects;
"""


def as_version_0_1(path: Path, sizes: bool = True) -> None:
    """Make the ledger ``path`` one of version 0.1 with the same content; the first one kept no ``sizes``."""
    new = path.with_name(f"first-{path.name}")
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(TABLES)
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.execute("ATTACH ? AS present", (str(path),))
        for table in tables:
            if table not in ("layouts", "sqlite_sequence"):
                names = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
                connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM present.{table}")
        if sizes:
            connection.executescript(SIZES)
        connection.execute("INSERT INTO layouts VALUES ('a layout of version 0.1')")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)
