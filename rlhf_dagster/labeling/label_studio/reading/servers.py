"""The servers that a loop's tasks went to: each under a key of its own, which other records are kept by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.tables import LS_ANSWERS, LS_PROJECTS, LS_SERVERS


@dataclass(frozen=True)
class KnownServer:
    """A database of Label Studio's that tasks went to."""

    key: str
    """What its projects, tasks and annotations are kept by: the address at which it was first seen, for most."""
    address: str
    """Where it was seen last."""
    database: str
    """What tells it from every other database; empty in records of version 0.1."""
    left: str = ""
    """When a person said that it is not coming back (ISO 8601); empty for one that is in use."""


@dataclass(frozen=True)
class Said:
    """What a person said about labels that were missing, or what was found out without asking."""

    at: str
    by: str
    action: str
    said: str


class KnownServers:
    """Records of all servers of a loop, in the ledger at ``address``."""

    def __init__(self, address: LedgerAddress) -> None:
        self._address, self._database = address, Database(address)

    def state(self, key: str) -> SyncState:
        """What we know of one server."""
        return SyncState(self._address, key)

    def at(self, address: str) -> KnownServer | None:
        """The server in use that was last seen at an address."""
        found = next((known for known in self.all() if known.address == address and not known.left), None)
        if found is not None or address not in self._without_record():
            return found
        return KnownServer(key=address, address=address, database="")

    def of_database(self, database: str) -> KnownServer | None:
        """The server in use that has a database."""
        return next((known for known in self.all() if known.database == database and not known.left), None)

    def all(self) -> list[KnownServer]:
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(LS_SERVERS).order_by(LS_SERVERS.c.key)).all()
        return [KnownServer(**row._mapping) for row in rows]

    def in_use(self) -> list[KnownServer]:
        """Servers that nobody has given up, those included of which version 0.1 kept the address alone."""
        known = self.all()
        old = [KnownServer(key=key, address=key, database="") for key in sorted(self._without_record())]
        return [found for found in [*known, *old] if not found.left]

    def add(self, address: str, database: str) -> KnownServer:
        """Record a server under a key that no other has had."""
        taken = {known.key for known in self.all()} | self._without_record()
        keys = [address, *(f"{address} #{number}" for number in range(2, len(taken) + 3))]
        added = KnownServer(key=next(key for key in keys if key not in taken), address=address, database=database)
        self._put(added)
        return added

    def set_database(self, key: str, database: str) -> None:
        """Record what tells a server's database from others."""
        known = next(found for found in self.in_use() if found.key == key)
        self._put(KnownServer(key, known.address, database))

    def move(self, server: KnownServer, address: str) -> KnownServer:
        """Record that a server is at another address now."""
        displaced = self.at(address)
        if displaced is not None:
            self._put(KnownServer(displaced.key, "", displaced.database))
        moved = KnownServer(server.key, address, server.database)
        self._put(moved)
        self.record("loop", "moved", f"{server.database} was at {server.address or 'no address'} and is at {address}.")
        return moved

    def leave(self, servers: Sequence[KnownServer]) -> None:
        """Record that servers are not coming back: what is on record of them stays as it is."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        for server in servers:
            self._put(KnownServer(server.key, server.address, server.database, left=at))

    def record(self, by: str, action: str, said: str) -> None:
        """Keep who said what."""
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        with self._database.transaction() as connection:
            connection.execute(sa.insert(LS_ANSWERS), {"at": at, "by": by, "action": action, "said": said})

    def answers(self) -> list[Said]:
        """All that was said, oldest first."""
        with self._database.reading() as connection:
            return [Said(**row._mapping) for row in connection.execute(sa.select(LS_ANSWERS).order_by(LS_ANSWERS.c.at))]

    def _without_record(self) -> set[str]:
        """Keys of servers that version 0.1 has sent tasks to."""
        recorded = sa.select(LS_SERVERS.c.key)
        query = sa.select(LS_PROJECTS.c.server).where(LS_PROJECTS.c.server.not_in(recorded)).distinct()
        with self._database.reading() as connection:
            return {row[0] for row in connection.execute(query)}

    def _put(self, server: KnownServer) -> None:
        row = {"key": server.key, "address": server.address, "database": server.database, "left": server.left}
        insert = self._database.insert(LS_SERVERS).values(row)
        with self._database.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_=row))
