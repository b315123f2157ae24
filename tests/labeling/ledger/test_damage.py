"""What is not as it was written is said, and never counted."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger import parts
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import check_ledger
from rlhf_dagster.labeling.ledger.database import Database, LedgerDamaged
from rlhf_dagster.labeling.ledger.tables import TALLIES
from rlhf_dagster.labeling.store import Submission

ROUND, PURPOSE = "round-0001", "train"
FLIPS = 150
BY_HAND = {
    "a changed answer": "UPDATE annotations SET result = '{\"choice\": 1}' WHERE position = 3",
    "another annotator": "UPDATE annotations SET annotator = 'eve' WHERE position = 3",
    "a label of another round": "UPDATE annotations SET project = 'round-0002/train' WHERE position = 3",
    "a missing label": "DELETE FROM annotations WHERE position = 3",
    "the last one is missing": "DELETE FROM annotations WHERE position = (SELECT MAX(position) FROM annotations)",
    "a doubled label": "INSERT INTO annotations SELECT position + 1000, annotation_id, version + 1, comparison_id, "
    "annotator, status, result, seconds, created_at, updated_at, project, digest FROM annotations WHERE position = 3",
    "a changed comparison": "UPDATE comparisons SET content = replace(content, 'response', 'answer') WHERE task_id = 2",
    "a lost project": "UPDATE projects SET project = 'round-0003/train' WHERE project = 'round-0002/train'",
    "other totals": "UPDATE projects SET annotations = annotations - 1 WHERE project = 'round-0001/train'",
}
GUARDS = {
    "sqlite": ["DROP TRIGGER annotations_are_never_changed", "DROP TRIGGER annotations_are_never_removed"],
    "postgresql": ["ALTER TABLE annotations DISABLE TRIGGER USER", "SET session_replication_role = replica"],
}


@pytest.fixture
def labelled(ledger, batch) -> EmbeddedLabelStore:
    for key in (ROUND, "round-0002"):
        frame = batch(8, key)
        ledger.send(frame)
        ledger.submit_many(
            [Submission(one, "ann", {"choice": 0, "strength": 1.0}, 2) for one in frame["comparison_id"]]
        )
    return ledger


def by_hand(address: LedgerAddress, statement: str) -> None:
    """Run a statement past everything that keeps the ledger whole."""
    engine = sa.create_engine(address.url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        if not address.is_sqlite:
            connection.exec_driver_sql(f'SET search_path TO "{address.schema}"')
        for line in [*GUARDS[engine.dialect.name], statement]:
            connection.exec_driver_sql(line)
        connection.commit()


def drop(path: Path, index: str, all_but: str) -> None:
    """Build an index without most of its entries, under a definition that does not say so."""
    with closing(sqlite3.connect(path)) as connection:
        definition = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (index,)).fetchone()[0]
    define(path, index, f"{definition} WHERE {all_but}")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"REINDEX {index}")
    define(path, index, definition)


def define(path: Path, index: str, definition: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (definition, index))


def read_all(store: EmbeddedLabelStore) -> list:
    rounds = (ROUND, "round-0002")
    counts = [store.count(key, PURPOSE) for key in rounds]
    return [
        [store.read(key, PURPOSE) for key in rounds],
        [store.comparisons(key, PURPOSE).to_json() for key in rounds],
        [(one.comparisons, one.usable, one.position) for one in counts],
    ]


@pytest.mark.parametrize("what", BY_HAND)
def test_what_was_changed_behind_its_back_is_one_sentence(labelled, place, what: str) -> None:
    if "lost" in what and not place.is_sqlite:
        by_hand(place, "ALTER TABLE comparisons DROP CONSTRAINT comparisons_project_fkey")
    check_ledger(place)
    by_hand(place, BY_HAND[what])
    with pytest.raises(LedgerDamaged) as caught:
        read_all(labelled)
    sentence = str(caught.value)
    assert str(place) in sentence
    assert "`rlhf check LOOP`" in sentence
    assert "\n" not in sentence
    with pytest.raises(LedgerDamaged):
        check_ledger(place)


@pytest.mark.parametrize("what", BY_HAND)
def test_a_reading_in_parts_notices_the_same(labelled, place, what: str, monkeypatch) -> None:
    monkeypatch.setattr(parts, "_ROWS", 3)
    if "lost" in what and not place.is_sqlite:
        by_hand(place, "ALTER TABLE comparisons DROP CONSTRAINT comparisons_project_fkey")
    by_hand(place, BY_HAND[what])
    with pytest.raises(LedgerDamaged):
        for key in (ROUND, "round-0002"):
            list(labelled.annotations(key, PURPOSE))
            list(labelled.comparison_rows(key, PURPOSE))


def test_an_index_that_has_lost_an_entry_is_noticed(tmp_path: Path, batch) -> None:
    path = tmp_path / "ledger.sqlite"
    store = EmbeddedLabelStore(path)
    frame = batch(8)
    store.send(frame)
    store.submit_many([Submission(one, "ann", {"choice": 0}) for one in frame["comparison_id"]])
    drop(path, "annotations_by_project", "position < 3")
    for read in (store.read, lambda *key: list(store.annotations(*key))):
        with pytest.raises(LedgerDamaged, match="2 annotations of the 8"):
            read(ROUND, PURPOSE)


def test_no_flipped_bit_changes_a_number_without_a_word(tmp_path: Path, batch) -> None:
    path = tmp_path / "ledger.sqlite"
    store = EmbeddedLabelStore(path)
    for key in (ROUND, "round-0002"):
        frame = batch(12, key)
        store.send(frame)
        store.submit_many([Submission(one, "ann", {"choice": 0}, 1.5) for one in frame["comparison_id"]])
    wanted = read_all(store)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole, rng = path.read_bytes(), random.Random(0)
    noticed = 0
    for flip in range(FLIPS):
        place = rng.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        copy = tmp_path / f"{flip}.sqlite"
        copy.write_bytes(damaged)
        try:
            assert read_all(EmbeddedLabelStore(copy)) == wanted
        except UserError as error:
            noticed += 1
            assert "\n" not in str(error)
    assert noticed > 0


@pytest.mark.parametrize("what", ["a label is missing", "it is another one"])
def test_what_is_new_is_compared_with_the_totals_when_it_is_counted(labelled, place, what: str) -> None:
    labelled.count(ROUND, PURPOSE)
    ids = labelled.comparisons(ROUND, PURPOSE)["comparison_id"]
    labelled.submit_many([Submission(one, "bob", {"choice": 1}) for one in ids[:2]])
    missing = "DELETE FROM annotations WHERE position = 17"
    by_hand(place, missing if "missing" in what else "UPDATE annotations SET annotator = 'ann' WHERE position = 17")
    with pytest.raises(LedgerDamaged):
        labelled.count(ROUND, PURPOSE)


def test_counting_what_is_new_does_not_trust_an_index(tmp_path: Path, batch) -> None:
    path = tmp_path / "ledger.sqlite"
    store, frame = EmbeddedLabelStore(path), batch(8)
    store.send(frame)
    ids = frame["comparison_id"].tolist()
    store.submit_many([Submission(one, "ann", {"choice": 0}) for one in ids])
    assert store.count(ROUND, PURPOSE).complete == 8
    drop(path, "annotations_by_comparison", "position > 8")
    store.submit(ids[0], "bob", {"choice": 0})
    counts = store.count(ROUND, PURPOSE)
    assert (counts.complete, counts.labelled, counts.usable) == (8, 8, 9)


@pytest.mark.parametrize("column", ["positions", "times", "counts", "held"])
def test_damaged_counts_are_made_again(labelled, place, column: str) -> None:
    wanted = labelled.count(ROUND, PURPOSE, since=2)
    value = b"\0" * 64 if column != "counts" else "{}"
    with Database(place).transaction() as connection:
        connection.execute(sa.update(TALLIES).values({column: value}))
    assert labelled.count(ROUND, PURPOSE, since=2) == wanted
