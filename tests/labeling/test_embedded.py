import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.records.schemas import COMPARISONS, later_columns, table

ROUND, PURPOSE = "round-0001", "train"


def test_a_comparison_of_version_0_1_has_no_tokens(tmp_path: Path) -> None:
    store = EmbeddedLabelStore(tmp_path / "labels.sqlite")
    old = dict.fromkeys(set(COMPARISONS.names) - set(later_columns(COMPARISONS)), "") | {"labels_wanted": 1}
    lists = ("completion_ids", "responses", "policy_ids", "display_order")
    old |= {name: [] for name in lists} | {"gold_ranks": None, "round": "r", "purpose": "train"}
    drawn = {"token_ids": [[1, 2], None], "tokenizers": ["t", ""]}
    store.send(pd.DataFrame([old | {"comparison_id": "old"}]))
    store.send(table([old | {"comparison_id": "new", **drawn}], COMPARISONS).to_pandas())
    found = table(store.comparisons("r", "train"), COMPARISONS).to_pylist()
    assert [(row["token_ids"], row["tokenizers"]) for row in found] == [(None, None), tuple(drawn.values())]


def test_delete_is_a_version_and_history_stays(sent) -> None:
    store, batch = sent(1)
    comparison = batch["comparison_id"][0]
    identity = store.submit(comparison, "ann", {"best": 0}, seconds=2.0)
    assert store.delete(comparison, "ann") == identity
    store.delete(comparison, "ann")
    versions, _ = store.read(ROUND, PURPOSE)
    assert [(v.version, v.status) for v in versions] == [(1, "submitted"), (2, "deleted")]
    assert store.count(ROUND, PURPOSE).labels == 0


def test_only_an_annotation_can_be_deleted(sent) -> None:
    store, batch = sent(1)
    with pytest.raises(UserError, match="ann has no annotation"):
        store.delete(batch["comparison_id"][0], "ann")


def test_the_answer_before_a_skip_can_be_given_again(sent) -> None:
    store, batch = sent(1)
    comparison = batch["comparison_id"][0]
    store.submit(comparison, "ann", {"best": 0})
    store.skip(comparison, "ann")
    store.submit(comparison, "ann", {"best": 0})
    assert [v.version for v in store.read(ROUND, PURPOSE)[0]] == [1, 2, 3]
    assert store.count(ROUND, PURPOSE).usable == 1


@pytest.mark.parametrize("statement", ["UPDATE annotations SET result = '{}'", "DELETE FROM annotations"])
def test_annotations_cannot_be_changed_even_by_hand(sent, statement: str) -> None:
    store, batch = sent(1)
    store.submit(batch["comparison_id"][0], "ann", {"best": 0})
    connection = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.close()


def test_a_process_killed_inside_a_transaction_leaves_nothing_and_blocks_nobody(sent) -> None:
    store, batch = sent(2)
    first, second = batch["comparison_id"]
    code = """
import os, sys
from pathlib import Path
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.store import Submission
def answers():
    yield Submission(sys.argv[2], "ann", {"best": 0})
    os._exit(9)
EmbeddedLabelStore(Path(sys.argv[1])).submit_many(answers())
"""
    assert subprocess.run([sys.executable, "-c", code, str(store.path), first], check=False).returncode == 9
    assert store.read(ROUND, PURPOSE)[0] == []
    store.submit(second, "ann", {"best": 0})
    assert len(store.read(ROUND, PURPOSE)[0]) == 1


def _edit(path, comparison: str, worker: int, barrier, failures) -> None:
    barrier.wait()
    try:
        store = EmbeddedLabelStore(path)
        for number in range(20):
            store.submit(comparison, "ann", {"best": 0, "reason": f"{worker}.{number}"})
        failures.put("")
    except Exception as error:
        failures.put(repr(error))


def test_edits_by_processes_at_once_are_all_kept(sent) -> None:
    store, batch = sent(1)
    context = multiprocessing.get_context("fork")
    barrier, failures = context.Barrier(3), context.Queue()
    arguments = (store.path, batch["comparison_id"][0])
    workers = [context.Process(target=_edit, args=(*arguments, number, barrier, failures)) for number in range(3)]
    for worker in workers:
        worker.start()
    assert [failures.get() for _ in workers] == [""] * 3
    for worker in workers:
        worker.join()
    assert [version.version for version in store.read(ROUND, PURPOSE)[0]] == list(range(1, 61))


def test_a_file_that_is_no_database_is_one_sentence(tmp_path) -> None:
    file = tmp_path / "labels.sqlite"
    file.write_text("this is no database, whatever its name says\n" * 50)
    with pytest.raises(UserError, match="cannot keep labels here"):
        EmbeddedLabelStore(file)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write here"):
        EmbeddedLabelStore(tmp_path / "file" / "labels.sqlite")
