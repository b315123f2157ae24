"""Locks, triggers, and servers that go away, in both databases."""

import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from postgres import PostgresServer, require_postgres

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.database import Database
from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS_TABLE
from rlhf_dagster.labeling.store import LabelStoreUnavailable, Submission

ROUND, PURPOSE = "round-0001", "train"
CONTEXT = multiprocessing.get_context("fork")
CHANGES = {
    "change": sa.update(ANNOTATIONS_TABLE).values(result="{}"),
    "remove": sa.delete(ANNOTATIONS_TABLE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_annotations_cannot_be_changed_in_either_database(ledger, place, batch, change: str) -> None:
    frame = batch(1)
    ledger.send(frame)
    ledger.submit(frame["comparison_id"][0], "ann", {"choice": 0})
    before = ledger.read(ROUND, PURPOSE)
    with pytest.raises(UserError, match="append-only"), Database(place).transaction() as connection:
        connection.execute(CHANGES[change])
    assert ledger.read(ROUND, PURPOSE) == before


def test_annotations_cannot_be_emptied_in_postgres(postgres, batch) -> None:
    place = LedgerAddress.of(postgres.address())
    EmbeddedLabelStore(place)
    with pytest.raises(UserError, match="append-only"), Database(place).transaction() as connection:
        connection.exec_driver_sql(f"TRUNCATE {place.schema}.annotations")


def test_a_tick_waits_for_no_disk_of_a_server_and_labels_do(postgres, batch, monkeypatch) -> None:
    place = LedgerAddress.of(postgres.address())
    ledger, frame, seen = EmbeddedLabelStore(place), batch(1), list[str]()

    def listen(connection: sa.Connection) -> None:
        """What is set as each transaction ends."""
        seen.append(connection.connection.cursor().execute("SHOW synchronous_commit").fetchone()[0])

    engine = Database(place).engine
    sa.event.listen(engine, "commit", listen)
    try:
        ledger.send(frame)
        ledger.submit(frame["comparison_id"][0], "ann", {"choice": 0})
        assert set(seen) == {"on"}
        assert ledger.count(ROUND, PURPOSE).usable == 1
        assert seen[-1] == "off"
    finally:
        sa.event.remove(engine, "commit", listen)
    assert EmbeddedLabelStore(place).count(ROUND, PURPOSE).usable == 1


def _hold(place: LedgerAddress, folder: Path, held, inside, most) -> None:
    with EmbeddedLabelStore(place).exclusive("reader", folder):
        held.set()
        with inside.get_lock():
            inside.value += 1
            most.value = max(most.value, inside.value)
        time.sleep(0.1)
        with inside.get_lock():
            inside.value -= 1


def test_one_process_at_a_time_holds_a_lock_wherever_its_folder_is(postgres, tmp_path) -> None:
    place = LedgerAddress.of(postgres.address())
    held, inside, most = CONTEXT.Event(), CONTEXT.Value("i", 0), CONTEXT.Value("i", 0)
    holders = [
        CONTEXT.Process(target=_hold, args=(place, tmp_path / str(number), held, inside, most)) for number in range(4)
    ]
    for holder in holders:
        holder.start()
    for holder in holders:
        holder.join()
        assert holder.exitcode == 0
    assert most.value == 1


def test_who_dies_with_a_lock_frees_it(postgres, tmp_path) -> None:
    place = LedgerAddress.of(postgres.address())
    held, inside, most = CONTEXT.Event(), CONTEXT.Value("i", 0), CONTEXT.Value("i", 0)
    holder = CONTEXT.Process(target=_hold, args=(place, tmp_path, held, inside, most))
    holder.start()
    held.wait()
    holder.kill()
    holder.join()
    with EmbeddedLabelStore(place).exclusive("reader", tmp_path):
        pass
    # Taken again and again in one process, it is free each time.
    with EmbeddedLabelStore(place).exclusive("reader", tmp_path):
        pass


def test_a_server_that_goes_away_is_waited_for(batch) -> None:
    programs = require_postgres()
    with TemporaryDirectory(prefix="rlhf-postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        store = EmbeddedLabelStore(server.address())
        frame = batch(2)
        store.send(frame)
        server.stop()
        for attempt in (
            lambda: store.count(ROUND, PURPOSE),
            lambda: store.submit_many([Submission(frame["comparison_id"][0], "ann", {"choice": 0})]),
        ):
            with pytest.raises(LabelStoreUnavailable, match="is the server up"):
                attempt()
        server.start()
        assert store.count(ROUND, PURPOSE).comparisons == 2
        server.stop()


def test_postgres_writes_the_counts_of_a_round_as_they_are(postgres):
    """Compressing those of a large round took Postgres longer than all the rest of a tick."""
    address = LedgerAddress.of(postgres.address())
    EmbeddedLabelStore(address)
    with Database(address).reading() as connection:
        query = "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attstorage = 'e'"
        found = connection.execute(sa.text(query), {"table": f'"{address.schema}".tallies'}).scalars().all()
    assert set(found) == {"positions", "times", "held"}
