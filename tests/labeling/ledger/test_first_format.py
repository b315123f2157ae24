"""Ledgers that version 0.1 made."""

import sqlite3
from contextlib import closing

import pytest
from first_ledger import as_version_0_1

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.ledger.copying import check_ledger
from rlhf_dagster.labeling.store import Submission

ROUND, PURPOSE = "round-0001", "train"


@pytest.fixture
def old(tmp_path, batch) -> EmbeddedLabelStore:
    store = EmbeddedLabelStore(tmp_path / "ledger.sqlite")
    for key in (ROUND, "round-0002"):
        frame = batch(6, key)
        store.send(frame)
        store.submit_many([Submission(one, "ann", {"choice": 0}, 1.5) for one in frame["comparison_id"]])
    store.submit(frame["comparison_id"][0], "ann", {"choice": 1})
    SyncState(store.address, "http://server").add_names({1: "ann"})
    return store


@pytest.mark.parametrize("sizes", [True, False])
def test_all_is_there_with_digests(old, sizes: bool) -> None:
    def content(store: EmbeddedLabelStore) -> list:
        state = store.state()
        rounds = [(store.read(key, PURPOSE), store.size(key, PURPOSE)) for key in (ROUND, "round-0002", "round-0003")]
        frames = [store.comparisons(key, PURPOSE).to_json() for key in (ROUND, "round-0002")]
        sync = SyncState(store.address, "http://server")
        return [state.position, state.annotations, rounds, frames, sync.names(), sync.store_id]

    wanted = content(old)
    as_version_0_1(old.path, sizes)
    store = EmbeddedLabelStore(old.path)
    assert content(store) == wanted
    assert check_ledger(store.address).annotations == 13
    assert store.count(ROUND, PURPOSE).usable == 6
    store.submit(store.comparisons(ROUND, PURPOSE)["comparison_id"][0], "bob", {"choice": 1})
    assert store.position() == 14
    assert EmbeddedLabelStore(old.path).state() == store.state()


def test_a_position_that_was_given_out_does_not_come_again(old) -> None:
    as_version_0_1(old.path)
    with closing(sqlite3.connect(old.path)) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq = 40 WHERE name = 'annotations'")
    store = EmbeddedLabelStore(old.path)
    store.submit(store.comparisons(ROUND, PURPOSE)["comparison_id"][0], "bob", {"choice": 1})
    assert store.read(ROUND, PURPOSE)[1] == 41


def test_annotations_cannot_be_changed_afterwards(old) -> None:
    as_version_0_1(old.path)
    EmbeddedLabelStore(old.path)
    with closing(sqlite3.connect(old.path)) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("DELETE FROM annotations")
