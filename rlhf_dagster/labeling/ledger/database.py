"""The database that holds a ledger: short transactions, and its errors as sentences."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.common.files import locked, locked_at_once
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.digests import digest
from rlhf_dagster.labeling.store import LabelStoreUnavailable

BUSY_SECONDS = 60.0
"""How long a writer of an SQLite file waits for another one."""
CACHE_KB = 128 * 1024
"""Memory that a connection to an SQLite file may use: an index whose pages do not fit is written again and again."""
CONNECT_SECONDS = "10"
"""How long a Postgres server may take to answer."""
_FOREIGN = "not a database"
_DAMAGES = ("malformed", "could not decode", "invalid page", "could not read block")
_BUSY = ("database is locked", "database table is locked")


class LedgerDamaged(UserError):  # noqa: N818  # damaged is what it is
    """What the ledger holds is not what was written into it."""

    @classmethod
    def at(cls, address: LedgerAddress, what: str) -> "LedgerDamaged":
        return cls(
            f"The ledger {address} is damaged: {what}; its labels cannot be trusted until it is mended: `rlhf check "
            "LOOP` looks at all of it, and a backup of the ledger brings them back."
        )


class Database:
    """The tables at ``address``. Threads, forks and other processes can work on them at the same time."""

    def __init__(self, address: LedgerAddress) -> None:
        self.address = address
        self.engine = _engine(address)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads: all it reads is of one moment."""
        with self._connection(write=False) as connection, connection.begin():
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A write transaction. In SQLite it is the only one from its start; in Postgres rows must be locked."""
        with self._connection(write=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def remembering(self) -> Iterator[sa.Connection]:
        """A write transaction for what can be made again: a Postgres server confirms it before it is on its disk.

        If the server dies then, what was there before may be there instead, whole.
        """
        with self.transaction() as connection:
            if not self.address.is_sqlite:
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
            yield connection

    @contextmanager
    def exclusive(self, name: str, folder: Path) -> Iterator[None]:
        """Hold a lock that one process at a time has: on every machine in Postgres, by a file in ``folder`` else."""
        if self.address.is_sqlite:
            with locked(folder / f"{name}.lock"):
                yield
            return
        with self._lockable(name) as (alone, key):
            alone.execute(sa.select(sa.func.pg_advisory_lock(key)))
            yield

    @contextmanager
    def exclusive_at_once(self, name: str, folder: Path) -> Iterator[bool]:
        """The same without waiting: False where another process holds the lock."""
        if self.address.is_sqlite:
            with locked_at_once(folder / f"{name}.lock") as is_alone:
                yield is_alone
            return
        with self._lockable(name) as (alone, key):
            yield bool(alone.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())

    @contextmanager
    def _lockable(self, name: str) -> Iterator[tuple[sa.Connection, int]]:
        """A connection that can hold a lock of the server, and the lock's key."""
        with self._connection(write=False) as connection:
            try:
                yield connection.execution_options(isolation_level="AUTOCOMMIT"), digest([self.address.schema, name])
            finally:
                # With its connection the server frees the lock, as it does when this process dies.
                connection.invalidate()

    def insert_new(self, table: sa.Table) -> Any:
        """An INSERT that leaves out the rows which are there already."""
        return self.insert(table).on_conflict_do_nothing()

    def insert(self, table: sa.Table) -> Any:
        """The dialect's own INSERT, which can say what happens to a row that is there already."""
        if self.address.is_sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        return postgres_insert(table)

    def add_rows(self, connection: sa.Connection, table: sa.Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows; the values of each are in the order of the table's columns."""
        if not rows:
            return
        if self.address.is_sqlite:
            # Binding the values of a row by name takes longer than writing it.
            connection.exec_driver_sql(_insertion(table), list(rows))
            return
        names = [column.name for column in table.columns]
        connection.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in rows])

    @contextmanager
    def _connection(self, write: bool) -> Iterator[sa.Connection]:
        with sentences(self.address), self.engine.connect() as connection:
            if not self.address.is_sqlite:
                level = "READ COMMITTED" if write else "REPEATABLE READ"
                connection = connection.execution_options(isolation_level=level)  # noqa: PLW2901
            yield connection.execution_options(write=write)


@contextmanager
def sentences(address: LedgerAddress) -> Iterator[None]:
    """Raise a database's errors as a UserError that names the ledger, and never its password."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _sentence(address, error) from None


def _sentence(address: LedgerAddress, error: sa.exc.DBAPIError) -> UserError:
    said = address.hidden(first_line(error.orig or error))
    low = said.lower()
    if any(word in low for word in _BUSY):
        return LabelStoreUnavailable(f"The ledger {address} is in use by others for too long ({said}); try again.")
    if _FOREIGN in low:
        return LedgerDamaged(
            f"{address}: cannot keep labels here ({said}): if it was a ledger, it is damaged, and a backup brings its "
            "labels back (`rlhf check LOOP` looks at all of it); otherwise choose another file."
        )
    if any(word in low for word in _DAMAGES) or isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):
        return LedgerDamaged.at(address, said)
    if "disk i/o error" in low:
        return UserError(f"The ledger {address} cannot be read or written ({said}); look at the disk it is on.")
    if not address.is_sqlite and (error.connection_invalidated or isinstance(error, sa.exc.OperationalError)):
        return LabelStoreUnavailable(f"The ledger {address} gives no answer ({said}); is the server up?")
    return UserError(f"{address}: cannot keep labels here ({said}); make room, or choose another place.")


@cache
def _insertion(table: sa.Table) -> str:
    from sqlalchemy.dialects import sqlite

    return str(sa.insert(table).compile(dialect=sqlite.dialect()))


@lru_cache(maxsize=64)
def _engine(address: LedgerAddress) -> sa.Engine:
    try:
        engine = sa.create_engine(address.url, hide_parameters=True, **_options(address))
    except ModuleNotFoundError:
        raise UserError(f"The ledger {address} needs psycopg; `{install_extras('postgres')}`.") from None
    if address.is_sqlite:
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    # A fork has connections of its own; those of its parent stay the parent's.
    os.register_at_fork(after_in_child=lambda: engine.dispose(close=False))
    return engine.execution_options(schema_translate_map={None: address.schema or None})


def _options(address: LedgerAddress) -> dict[str, Any]:
    if address.is_sqlite:
        return {"poolclass": sa.NullPool, "connect_args": {"timeout": BUSY_SECONDS}}
    given = "connect_timeout" in address.url.query
    arguments = {} if given else {"connect_timeout": CONNECT_SECONDS}
    pool = {"pool_size": 2, "max_overflow": 30, "pool_pre_ping": True, "pool_recycle": 600}
    return {**pool, "connect_args": arguments, "use_native_hstore": False}


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, and by nobody else
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")


def _begin_sqlite(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
