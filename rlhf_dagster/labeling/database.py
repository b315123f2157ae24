"""The SQLite file that label stores keep: short transactions on connections of their own."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_dagster.common.files import locked
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash

BUSY_SECONDS = 60.0
"""How long a writer waits for another one."""


class Database:
    """Tables in the file ``path``. Threads, forks and other processes can work on it at the same time."""

    def __init__(self, path: Path, tables: str) -> None:
        """``tables`` are statements that make the tables unless they are there."""
        self.path = Path(path)
        # The lock, because SQLite does not wait for other processes when it changes the journal mode.
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            try:
                self._set_up(tables)
            except sqlite3.DatabaseError as error:
                raise UserError(f"{self.path}: cannot keep labels here ({error}); choose another file.") from None

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys=ON")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, which holds the lock from its start: what it reads stays true until it ends."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _set_up(self, tables: str) -> None:
        """Make the tables, only if they are not there: a statement that may write waits for other writers."""
        layout = content_hash(tables)
        with self.connection() as connection:
            if _has_layout(connection, layout):
                return
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(
                f"BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS layouts (layout TEXT NOT NULL); {tables} "  # noqa: S608
                f"INSERT INTO layouts VALUES ('{layout}'); COMMIT;"
            )


def _has_layout(connection: sqlite3.Connection, layout: str) -> bool:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'layouts'").fetchone() is None:
        return False
    return connection.execute("SELECT 1 FROM layouts WHERE layout = ?", (layout,)).fetchone() is not None
