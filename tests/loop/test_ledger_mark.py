"""A ledger that is gone, another one or an older one is noticed by the loop that has read it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from batches import pairs
from loops import asset_path

from rlhf_dagster.cli.upkeep import ledger as command
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels
from rlhf_dagster.loop.ledger_mark import MARK_FILE
from rlhf_dagster.records.schemas import LABELS, table

ROUND, PURPOSE = "round-0001", "train"
ANSWER = {"choice": 0, "strength": 0.5}


def make_loop(root: Path, text: str = "") -> LoopFolder:
    root.mkdir(exist_ok=True)
    (root / CONFIG_FILE).write_text(f"name: one\n{text}", encoding="utf-8")
    return LoopFolder.open(root)


def batch() -> pd.DataFrame:
    """Four comparisons, c0 to c3."""
    return pairs(4, ROUND, PURPOSE).assign(comparison_id=[f"c{number}" for number in range(4)])


def answer(loop: LoopFolder, numbers: range) -> None:
    loop.ledger.submit_many([Submission(f"c{number}", "ann", ANSWER) for number in numbers])


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """Three labels, which were read."""
    made = make_loop(tmp_path / "loop")
    made.label_store.send(batch())
    answer(made, range(3))
    assert len(read_labels(made, ROUND, PURPOSE)[0]) == 3
    return made


def sentence(loop: LoopFolder) -> str:
    """What the loop says in place of counting, and of reading."""
    said = set()
    for attempt in (lambda: loop.label_store.count(ROUND, PURPOSE), lambda: read_labels(loop, ROUND, PURPOSE)):
        with pytest.raises(UserError) as caught:
            attempt()
        said.add(str(caught.value))
    assert len(said) == 1
    return said.pop()


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_ledger_that_is_gone_is_said_and_not_made_anew(loop, what: str) -> None:
    path = loop.ledger.path
    path.unlink()
    if what == "empty":
        path.touch()
    said = sentence(loop)
    assert "is missing or empty, and 3 annotations up to position 3 were read" in said
    assert "rlhf ledger continue LOOP" in said
    assert not path.exists() or path.stat().st_size == 0


def test_another_ledger_in_its_place_is_said(loop, tmp_path) -> None:
    other = make_loop(tmp_path / "other")
    other.ledger.send(batch())
    answer(other, range(4))
    shutil.copy(other.ledger.path, loop.ledger.path)
    assert "is not the one that this loop has worked with" in sentence(loop)


def test_a_ledger_from_a_backup_is_said_and_positions_are_not_used_twice(loop, tmp_path) -> None:
    path = loop.ledger.path
    shutil.copy(path, tmp_path / "backup")
    answer(loop, range(4))
    loop.label_store.submit("c0", "bob", ANSWER)
    assert read_labels(loop, ROUND, PURPOSE)[0]["position"].max() == 5
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup", path)
    assert "has gone back to 3 annotations up to position 3" in sentence(loop)

    command.go_on(loop.root)
    assert loop.label_store.count(ROUND, PURPOSE, since=5).new == 0
    answer(loop, range(3, 4))
    assert loop.label_store.count(ROUND, PURPOSE, since=5).new == 1
    assert loop.ledger.position() == 6


def test_going_on_without_the_ledger_is_possible_when_it_is_asked_for(loop, capsys) -> None:
    loop.ledger.path.unlink()
    command.go_on(loop.root)
    assert "is missing or empty, and 3 annotations" in capsys.readouterr().out
    loop.label_store.send(batch())
    answer(loop, range(1))
    assert read_labels(loop, ROUND, PURPOSE)[0]["position"].tolist() == [4]


def test_a_loop_of_version_0_1_is_protected_by_its_tables(loop) -> None:
    labels = read_labels(loop, ROUND, PURPOSE)[0]
    path = asset_path(loop, "preference_labels", ROUND)
    path.parent.mkdir(parents=True)
    pq.write_table(table(labels.to_dict("records"), LABELS), path)
    (loop.root / MARK_FILE).unlink()
    assert loop.label_store.count(ROUND, PURPOSE).usable == 3
    (loop.root / MARK_FILE).unlink(missing_ok=True)
    loop.ledger.path.unlink()
    assert "3 annotations up to position 3" in sentence(loop)


def test_a_damaged_mark_is_one_sentence_and_is_made_again(loop) -> None:
    (loop.root / MARK_FILE).write_text("{")
    assert "is damaged" in sentence(loop)
    command.go_on(loop.root)
    assert loop.label_store.count(ROUND, PURPOSE).usable == 3


def test_labels_that_came_through_label_studio_count_when_the_store_is_the_ledger_alone(loop) -> None:
    settings, row = loop.config.labeling, loop.ledger.comparisons_by_id(["c3"])["c3"]
    state = SyncState(loop.ledger.address, "http://server")
    state.add_project(1, (ROUND, PURPOSE, "pair"), "hash", settings.model_dump_json(), 1, unsure=False)
    state.add_tasks(1, {1: "c3"}, 1)
    as_the_server_holds_it = encode(ANSWER, row, settings)
    assert isinstance(as_the_server_holds_it, list)
    loop.ledger.submit("c3", "bob", as_the_server_holds_it)
    labels, unreadable = read_labels(loop, ROUND, PURPOSE)
    assert (len(labels), unreadable) == (4, 0)
    assert loop.label_store.count(ROUND, PURPOSE).usable == 4


def test_two_loops_of_one_name_in_one_database_are_kept_apart(postgres, tmp_path) -> None:
    address = postgres.address()
    loops = [make_loop(tmp_path / name, f"ledger: {address}\n") for name in ("a", "b")]
    loops[0].ledger.send(batch())
    with pytest.raises(UserError, match="holds the labels of another loop"):
        loops[1].ledger.send(batch())
    answer(loops[0], range(2))
    assert loops[0].label_store.count(ROUND, PURPOSE).usable == 2


def test_loops_of_other_names_share_a_database(postgres, tmp_path) -> None:
    address = postgres.address().split("?")[0]
    stores = []
    for name in ("first_of_two", "second_of_two"):
        made = make_loop(tmp_path / name, "")
        (made.root / CONFIG_FILE).write_text(f"name: {name}\nledger: {address}\n")
        stores.append(LoopFolder.open(made.root).ledger)
        stores[-1].send(batch())
        stores[-1].submit("c0", "ann", ANSWER)
    assert [store.position() for store in stores] == [1, 1]


def test_a_loop_moves_to_postgres_with_its_labels(loop, postgres, capsys) -> None:
    address = postgres.address()
    command.copy(str(loop.root), address)
    assert "3 annotations up to position 3 copied" in capsys.readouterr().out
    moved = make_loop(loop.root, f"ledger: {address}\n")
    assert moved.label_store.count(ROUND, PURPOSE).usable == 3
    assert json.loads((loop.root / MARK_FILE).read_text())["position"] == 3
    answer(moved, range(4))
    assert moved.label_store.count(ROUND, PURPOSE, since=3).new == 1


def test_an_address_that_leads_elsewhere_is_said(loop, postgres) -> None:
    moved = make_loop(loop.root, f"ledger: {postgres.address()}\n")
    assert "is not the one that this loop has worked with" in sentence(moved)
