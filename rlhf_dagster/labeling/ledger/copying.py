"""Copying a ledger to another place, and looking at all of one."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.digests import with_digest
from rlhf_dagster.labeling.ledger.layout import prepare_tables
from rlhf_dagster.labeling.ledger.rows import LedgerRows, LedgerState
from rlhf_dagster.labeling.ledger.tables import (
    ANNOTATIONS_TABLE,
    COMPARISONS_TABLE,
    LAYOUTS,
    LEDGER_TABLE,
    METADATA,
    PROJECTS_TABLE,
    TALLIES,
)

_BATCH = 5000
_APPENDED = ((COMPARISONS_TABLE, COMPARISONS_TABLE.c.task_id), (ANNOTATIONS_TABLE, ANNOTATIONS_TABLE.c.position))
_OTHERWISE = (LAYOUTS, LEDGER_TABLE, PROJECTS_TABLE, COMPARISONS_TABLE, ANNOTATIONS_TABLE, TALLIES)
"""Tables that are copied in another way, or made again from these."""
_CHANGING = tuple(table for table in METADATA.sorted_tables if table not in _OTHERWISE)


def copy_ledger(source: LedgerAddress, target: LedgerAddress) -> LedgerState:
    """Copy all that ``source`` holds at this moment, with its identity and positions, and check the copy.

    A copy that was killed goes on where it was. Until it is whole, nobody can open it. Raises UserError where the
    target holds something else, and :class:`~rlhf_dagster.labeling.ledger.database.LedgerDamaged` where either side is
    damaged.
    """
    _require_source(source)
    old, new = Database(source), Database(target)
    prepare_tables(old)
    prepare_tables(new, copying=True)
    # One moment of the source, whatever is added to it meanwhile.
    with old.reading() as reading:
        rows = LedgerRows(source, reading)
        own = rows.ledger()
        _begin(new, source, own["identity"])
        _copy_projects(new, rows)
        for table, key in _APPENDED:
            _copy_appended(new, rows, table, key)
        with new.transaction() as connection:
            _copy_rest(reading, connection)
            copied = LedgerRows(target, connection)
            copied.check_all(own)
            connection.execute(sa.update(LEDGER_TABLE).values(own))
            return copied.state()


def check_ledger(address: LedgerAddress) -> LedgerState:
    """Read every row of a ledger. Raises LedgerDamaged for the first one that is not as it was written."""
    database = Database(address)
    prepare_tables(database)
    with database.reading() as connection:
        rows = LedgerRows(address, connection)
        if address.is_sqlite:
            _check_pages(connection, rows)
        rows.check_all(rows.ledger())
        return rows.state()


def _require_source(source: LedgerAddress) -> None:
    if source.path is not None and not source.path.is_file():
        raise UserError(f"{source}: there is no ledger to copy.")


def _begin(new: Database, source: LedgerAddress, identity: str) -> None:
    """Mark the target as a copy of which a part is missing; an empty ledger, or one marked so, can be one."""
    with new.transaction() as connection:
        rows = LedgerRows(new.address, connection)
        own = rows.ledger(lock=True)
        is_empty = connection.execute(sa.select(PROJECTS_TABLE.c.project).limit(1)).first() is None
        if own["copy_of"] != identity and (own["copy_of"] or not is_empty):
            raise UserError(f"{new.address} holds another ledger already; copy {source} to an empty place.")
        connection.execute(sa.update(LEDGER_TABLE).values(with_digest(LEDGER_TABLE, own | {"copy_of": identity})))


def _copy_projects(new: Database, rows: LedgerRows) -> None:
    with new.transaction() as connection:
        for project in rows.projects():
            connection.execute(_instead(new, PROJECTS_TABLE, dict(project)))


def _instead(new: Database, table: sa.Table, row: dict[str, Any]) -> Any:
    keys = [column.name for column in table.primary_key.columns]
    return new.insert(table).values(row).on_conflict_do_update(index_elements=keys, set_=row)


def _copy_appended(new: Database, rows: LedgerRows, table: sa.Table, key: sa.Column[int]) -> None:
    with new.reading() as connection:
        last = connection.execute(sa.select(sa.func.max(key))).scalar() or 0
    for batch in _batches(rows, table, key, last):
        with new.transaction() as connection:
            connection.execute(sa.insert(table), batch)


def _batches(rows: LedgerRows, table: sa.Table, key: sa.Column[int], last: int) -> Iterator[list[dict[str, Any]]]:
    while True:
        query = sa.select(table).where(key > last).order_by(key).limit(_BATCH)
        batch = [dict(row) for row in rows.found(table, query)]
        if not batch:
            return
        yield batch
        last = batch[-1][key.name]


def _copy_rest(reading: sa.Connection, connection: sa.Connection) -> None:
    """The tables whose rows change: small, and copied whole."""
    for table in _CHANGING:
        connection.execute(sa.delete(table))
        found = [dict(row) for row in reading.execute(sa.select(table)).mappings()]
        if found:
            connection.execute(sa.insert(table), found)


def _check_pages(connection: sa.Connection, rows: LedgerRows) -> None:
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    if found != "ok":
        raise rows.damaged(str(found))
