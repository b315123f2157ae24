"""`rlhf ledger copy`: the same ledger in another place, whatever was killed on the way."""

import multiprocessing
import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest
import sqlalchemy as sa

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.reading.servers import KnownServers
from rlhf_dagster.labeling.label_studio.records.seen import Seen
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.ledger import copying
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.labeling.ledger.database import Database, LedgerDamaged
from rlhf_dagster.labeling.ledger.tables import LEDGER_TABLE
from rlhf_dagster.labeling.store import Submission

ROUND, PURPOSE = "round-0001", "train"


@pytest.fixture
def source(tmp_path, batch) -> EmbeddedLabelStore:
    """With positions that were given out and are not there, and with a Label Studio server's records."""
    store = EmbeddedLabelStore(tmp_path / "source.sqlite")
    frame = batch(40)
    store.send(frame)
    store.submit_many([Submission(one, "ann", {"choice": 0}, 1.25) for one in frame["comparison_id"]])
    store.continue_after(100)
    store.submit(frame["comparison_id"][0], "ann", {"choice": 1, "reason": "on second thoughts: 更好 \U0001f600 \0"})
    store.continue_after(300)
    state = SyncState(store.address, "http://server")
    state.add_project(3, (ROUND, PURPOSE, "pair"), "hash", "{}", 1, unsure=False)
    state.add_tasks(3, {7: frame["comparison_id"][0]}, 1, sure=True)
    state.identify([Seen(1, 7, frame["comparison_id"][0], "ann", "2026-01-01", "2026-01-02")])
    state.set_aside(3, {7: "it cannot be read"})
    KnownServers(store.address).add("http://server", "organization 1")
    state.add_names({1: "ann"})
    return store


def content(store: EmbeddedLabelStore) -> list:
    state = SyncState(store.address, "http://server")
    return [
        store.state(),
        store.read(ROUND, PURPOSE),
        store.comparisons(ROUND, PURPOSE).to_dict("records"),
        store.count(ROUND, PURPOSE, since=20),
        state.store_id,
        state.projects(ROUND, PURPOSE),
        state.tasks(3),
        state.annotations([7]),
        state.names(),
        state.aside(3),
        KnownServers(store.address).all(),
    ]


def test_a_copy_is_the_same_ledger(source, place) -> None:
    assert copy_ledger(source.address, place) == source.state()
    copy = EmbeddedLabelStore(place)
    assert str(content(copy)) == str(content(source))
    first = source.comparisons(ROUND, PURPOSE)["comparison_id"][0]
    for store in (copy, source):
        store.submit(first, "bob", {"choice": 1})
    assert copy.position() == source.position() == 301


def test_there_and_back_is_the_same_ledger(source, place, tmp_path) -> None:
    copy_ledger(source.address, place)
    back = LedgerAddress.of(tmp_path / "back.sqlite")
    copy_ledger(place, back)
    assert str(content(EmbeddedLabelStore(back))) == str(content(source))


def test_what_holds_another_ledger_is_not_copied_to(source, ledger, place, batch) -> None:
    ledger.send(batch(2))
    with pytest.raises(UserError, match="holds another ledger already"):
        copy_ledger(source.address, place)
    assert len(ledger.comparisons(ROUND, PURPOSE)) == 2


def test_nothing_is_copied_from_a_file_that_is_not_there(tmp_path, place) -> None:
    with pytest.raises(UserError, match="no ledger to copy"):
        copy_ledger(LedgerAddress.of(tmp_path / "nothing.sqlite"), place)
    assert not (tmp_path / "nothing.sqlite").exists()


def _slowly(source: LedgerAddress, target: LedgerAddress, batches) -> None:
    plain = copying._batches
    copying._BATCH = 5

    def slow(*arguments):
        for batch in plain(*arguments):
            yield batch
            batches.value += 1
            time.sleep(0.2)

    copying._batches = slow
    copy_ledger(source, target)


def test_a_copy_that_is_killed_cannot_be_opened_and_goes_on(source, place) -> None:
    context = multiprocessing.get_context("fork")
    for kill in (1, 6, 3):
        batches = context.Value("i", 0)
        process = context.Process(target=_slowly, args=(source.address, place, batches))
        process.start()
        while batches.value < kill and process.is_alive():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        with pytest.raises(UserError, match="only a part of the ledger is copied"):
            EmbeddedLabelStore(place)
    source.submit(source.comparisons(ROUND, PURPOSE)["comparison_id"][1], "eve", {"choice": 1})
    copy_ledger(source.address, place)
    assert str(content(EmbeddedLabelStore(place))) == str(content(source))


def test_a_damaged_ledger_is_not_copied(source, place) -> None:
    with closing(sqlite3.connect(source.path)) as connection, connection:
        connection.execute("DROP TRIGGER annotations_are_never_changed")
        connection.execute("UPDATE annotations SET annotator = 'eve' WHERE position = 3")
    with pytest.raises(LedgerDamaged, match="position 3"):
        copy_ledger(source.address, place)
    with pytest.raises(UserError, match="only a part"):
        EmbeddedLabelStore(place)


def test_a_ledger_of_a_later_version_is_refused(ledger, place) -> None:
    with Database(place).transaction() as connection:
        connection.execute(sa.update(LEDGER_TABLE).values(format=99))
        connection.execute(sa.text(f"DELETE FROM {'' if place.is_sqlite else place.schema + '.'}layouts"))
    with pytest.raises(UserError, match="made by a later version"):
        EmbeddedLabelStore(place)
