"""From the ledger of version 0.1 to one with digests: every row gets its own, every project its totals."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.digests import added, with_digest
from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS_TABLE, COMPARISONS_TABLE, PROJECTS_TABLE

_BATCH = 10_000
_OLD_TRIGGERS = (
    "annotations_are_never_changed",
    "annotations_are_never_removed",
    "comparisons_are_counted",
    "annotations_are_counted",
)
_OLD_TABLES = ("sizes", "counts", "counted")
"""Totals are kept in ``projects`` now; counts are made anew."""


def digest_rows(connection: sa.Connection) -> tuple[int, int, int, int]:
    """Fill the new columns; the last position, the last task id, the number of annotations, and the projects' sum.

    Version 0.1 has SQLite alone. Positions and task ids are kept, and none that was ever given out comes again.
    """
    for trigger in _OLD_TRIGGERS:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {trigger}")
    for table in _OLD_TABLES:
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {table}")
    totals = {str(row["project"]): dict(row) for row in connection.execute(sa.select(PROJECTS_TABLE)).mappings()}
    _digest_comparisons(connection, totals)
    _digest_annotations(connection, totals)
    rows = [with_digest(PROJECTS_TABLE, total) for total in totals.values()]
    if rows:
        _update(connection, PROJECTS_TABLE, "project", rows)
    counted = sum(int(row["annotations"]) for row in rows)
    checksum = added(0, (row["digest"] for row in rows))
    return _last(connection, "annotations"), _last(connection, "comparisons"), counted, checksum


def _digest_comparisons(connection: sa.Connection, totals: dict[str, dict[str, Any]]) -> None:
    for batch in _batches(connection, COMPARISONS_TABLE, COMPARISONS_TABLE.c.task_id):
        rows = [with_digest(COMPARISONS_TABLE, row) for row in batch]
        for row in rows:
            total = totals[row["project"]]
            total["comparisons"] += 1
            total["comparison_sum"] = added(total["comparison_sum"], [row["digest"]])
        _update(connection, COMPARISONS_TABLE, "task_id", rows)


def _digest_annotations(connection: sa.Connection, totals: dict[str, dict[str, Any]]) -> None:
    query = sa.select(COMPARISONS_TABLE.c.comparison_id, COMPARISONS_TABLE.c.project)
    projects = {row[0]: row[1] for row in connection.execute(query)}
    for batch in _batches(connection, ANNOTATIONS_TABLE, ANNOTATIONS_TABLE.c.position):
        rows = [with_digest(ANNOTATIONS_TABLE, row | {"project": projects[row["comparison_id"]]}) for row in batch]
        for row in rows:
            total = totals[row["project"]]
            total["annotations"] += 1
            total["annotation_sum"] = added(total["annotation_sum"], [row["digest"]])
            total["position"] = row["position"]
        _update(connection, ANNOTATIONS_TABLE, "position", rows)


def _batches(connection: sa.Connection, table: sa.Table, key: sa.Column[int]) -> Iterator[list[dict[str, Any]]]:
    last = -1
    while True:
        query = sa.select(table).where(key > last).order_by(key).limit(_BATCH)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            return
        last = rows[-1][key.name]
        yield rows


def _update(connection: sa.Connection, table: sa.Table, key: str, rows: list[dict[str, Any]]) -> None:
    changed = [column for column in table.columns if column.server_default is not None]
    statement = (
        sa.update(table)
        .where(table.c[key] == sa.bindparam("of"))
        .values({column.name: sa.bindparam(f"new_{column.name}") for column in changed})
    )
    values = [{"of": row[key]} | {f"new_{column.name}": row[column.name] for column in changed} for row in rows]
    connection.execute(statement, values)


def _last(connection: sa.Connection, table: str) -> int:
    """The last number that SQLite has given out for a table, also if its row is gone."""
    query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    return int(connection.execute(query, {"name": table}).scalar() or 0)
