"""Counts of a round's labels, kept beside the ledger so that nothing is parsed again while nothing is new."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from functools import cache
from importlib.metadata import version

import pandas as pd

from rlhf_dagster.labeling.database import Database
from rlhf_dagster.labeling.parse import count_labels, countable_labels
from rlhf_dagster.labeling.store import LabelCounts

COUNT_TABLES = """
CREATE TABLE IF NOT EXISTS counts (project TEXT PRIMARY KEY, of TEXT NOT NULL, counts TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counted (
    project TEXT NOT NULL, position INTEGER NOT NULL, updated_at TEXT NOT NULL, PRIMARY KEY (project, position)
) WITHOUT ROWID;
"""
"""``counted`` holds a row for each usable label, so that those after any position can be counted."""
_NEW = "SELECT COUNT(*), MIN(updated_at), MAX(updated_at) FROM counted WHERE project = ? AND position > ?"


class CountCache:
    """The last counts of each project in the ledger ``database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(
        self, project: str, of: str, since: int, labels: Callable[[], tuple[pd.DataFrame, pd.DataFrame]]
    ) -> LabelCounts:
        """Counts of a project in the state that ``of`` names; ``new`` counts the labels after position ``since``.

        ``labels`` returns the project's tables of LABELS and COMPARISONS; it is called only if this state was not
        counted yet. Counts made by another release of this package are not used.
        """
        of = f"{of} {_release()}"
        with self._database.connection() as connection:
            connection.execute("BEGIN")  # one state of the file for both tables
            counted = _counted(connection, project, of, since)
        if counted is not None:
            return counted
        frames = labels()
        rows = _rows(project, frames[0])
        counts = json.dumps(asdict(count_labels(*frames)))
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM counted WHERE project = ?", (project,))
            connection.executemany("INSERT INTO counted VALUES (?, ?, ?)", rows)
            connection.execute("INSERT OR REPLACE INTO counts VALUES (?, ?, ?)", (project, of, counts))
            return _newer(connection, project, LabelCounts(**json.loads(counts)), since)


def _counted(connection: sqlite3.Connection, project: str, of: str, since: int) -> LabelCounts | None:
    row = connection.execute("SELECT counts FROM counts WHERE project = ? AND of = ?", (project, of)).fetchone()
    return None if row is None else _newer(connection, project, LabelCounts(**json.loads(row[0])), since)


def _newer(connection: sqlite3.Connection, project: str, counts: LabelCounts, since: int) -> LabelCounts:
    new, oldest, newest = connection.execute(_NEW, (project, since)).fetchone()
    return replace(counts, new=new, oldest_new_at=_moment(oldest), newest_at=_moment(newest))


def _rows(project: str, labels: pd.DataFrame) -> list[tuple[str, int, str]]:
    countable = countable_labels(labels)
    stamps = (at.isoformat(timespec="microseconds") for at in countable["updated_at"])
    return [(project, int(position), at) for position, at in zip(countable["position"], stamps, strict=True)]


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@cache
def _release() -> str:
    return version("rlhf-dagster")
