"""Making the ledger's tables, and bringing those of older versions up to date."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.common.files import locked
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.ledger.database import Database, sentences
from rlhf_dagster.labeling.ledger.digests import digest, with_digest
from rlhf_dagster.labeling.ledger.first_format import digest_rows
from rlhf_dagster.labeling.ledger.statements import table_statements
from rlhf_dagster.labeling.ledger.tables import LAYOUTS, LEDGER_TABLE, LS_STORE, METADATA
from rlhf_dagster.records.ids import content_hash

LEDGER_FORMAT = 2
"""Of what the tables hold. 1 is version 0.1's, whose rows had no digests."""


def prepare_tables(database: Database, copying: bool = False) -> None:
    """Make the tables, only if they are not there: a statement that may write waits for other writers.

    Raises UserError where the ledger is of a later format, cannot be kept there, or, unless it is ``copying``, is a
    copy of which a part is missing.
    """
    path = database.address.path
    # The lock, because SQLite does not wait for other processes when it changes the journal mode.
    with locked(path.with_name(f"{path.name}.lock")) if path else nullcontext():
        if not _is_up_to_date(database, copying):
            if path:
                _write_ahead(database)
            with _alone(database) as connection:
                _bring_up_to_date(database, connection)


def _is_up_to_date(database: Database, copying: bool) -> bool:
    with database.reading() as connection:
        if not _has(database, connection, LAYOUTS):
            return False
        if connection.execute(sa.select(LAYOUTS).where(LAYOUTS.c.layout == _layout())).first() is None:
            return False
        if not copying and connection.execute(sa.select(LEDGER_TABLE.c.copy_of)).scalar():
            raise UserError(f"{database.address}: only a part of the ledger is copied; run `rlhf ledger copy` again.")
        return True


@contextmanager
def _alone(database: Database) -> Iterator[sa.Connection]:
    """A write transaction, in which no other process makes the tables."""
    with database.transaction() as connection:
        if not database.address.is_sqlite:
            schema = database.address.schema
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(digest([schema, "layout"]))))
            found = connection.execute(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema})
            if schema and found.first() is None:
                connection.execute(sa.schema.CreateSchema(schema))
        yield connection


def _bring_up_to_date(database: Database, connection: sa.Connection) -> None:
    found = _format(database, connection)
    if found > LEDGER_FORMAT:
        raise UserError(
            f"The ledger {database.address} was made by a later version of rlhf_dagster (format {found}, known here is "
            f"{LEDGER_FORMAT}); upgrade rlhf-dagster."
        )
    METADATA.create_all(connection)
    _add_what_is_missing(database, connection)
    if found < LEDGER_FORMAT:
        _introduce(connection, *digest_rows(connection) if found else (0, 0, 0, 0))
    for statement in table_statements(database.address):
        connection.exec_driver_sql(statement)
    if connection.execute(sa.select(LS_STORE)).first() is None:
        connection.execute(sa.insert(LS_STORE), {"id": secrets.token_hex(8).upper()})
    connection.execute(sa.insert(LAYOUTS), {"layout": _layout()})


def _introduce(connection: sa.Connection, position: int, task: int, annotations: int, checksum: int) -> None:
    """Write the ledger's own row."""
    row: dict[str, Any] = {
        "id": 1,
        "identity": secrets.token_hex(8),
        "format": LEDGER_FORMAT,
        "loop": "",
        "copy_of": "",
    }
    row |= {"position": position, "task": task, "annotations": annotations, "checksum": checksum}
    connection.execute(sa.insert(LEDGER_TABLE), with_digest(LEDGER_TABLE, row))


def _format(database: Database, connection: sa.Connection) -> int:
    """The format of what is there; 0 where nothing is."""
    if _has(database, connection, LEDGER_TABLE):
        return int(connection.execute(sa.select(LEDGER_TABLE.c.format)).scalar() or 0)
    return 1 if sa.inspect(connection).has_table("annotations", schema=database.address.schema or None) else 0


def _add_what_is_missing(database: Database, connection: sa.Connection) -> None:
    """Columns and indices that tables of an earlier layout do not have; each such column has a default."""
    inspector = sa.inspect(connection)
    for table in METADATA.sorted_tables:
        there = {column["name"] for column in inspector.get_columns(table.name, schema=database.address.schema or None)}
        for column in table.columns:
            if column.name not in there:
                _add_column(connection, table, column)
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _add_column(connection: sa.Connection, table: sa.Table, column: sa.Column[Any]) -> None:
    compiled = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
    schema = connection.get_execution_options().get("schema_translate_map", {}).get(None)
    name = f'"{schema}"."{table.name}"' if schema else f'"{table.name}"'
    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {compiled}")


def _has(database: Database, connection: sa.Connection, table: sa.Table) -> bool:
    return sa.inspect(connection).has_table(table.name, schema=database.address.schema or None)


def _write_ahead(database: Database) -> None:
    with sentences(database.address):
        raw = database.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode=WAL")
        finally:
            raw.close()


@cache
def _layout() -> str:
    """A hash of the tables' definitions."""
    from sqlalchemy.dialects import sqlite

    made = (sa.schema.CreateTable(table).compile(dialect=sqlite.dialect()) for table in METADATA.sorted_tables)
    return content_hash(LEDGER_FORMAT, *map(str, made))
