"""`rlhf label` in the terminal, and who it sends elsewhere."""

import io
from pathlib import Path

import pytest
from label_loops import loop_of_kind
from loops import ROUND, assert_one_sentence, rlhf_here, write_loop

from rlhf_dagster.loop.folder import LoopFolder


def test_comparisons_are_judged_in_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of_kind(tmp_path, "pair", n=2)
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nbb\n"))
    found = rlhf_here("label", "--terminal", "--by", "Ada", "--loop", loop.root)
    assert found.returncode == 0
    assert f"What comes next: rlhf run train_round --round {ROUND}" in found.stdout
    assert "2 comparisons judged by Ada (on record as " in found.stdout
    assert loop.label_store.count(ROUND, "train").usable == 2


def test_a_loop_whose_people_work_in_label_studio_sends_there(tmp_path: Path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path, label_store={"kind": "label_studio"}))
    assert_one_sentence(rlhf_here("label", "--loop", loop.root), "Label Studio", "http://127.0.0.1:8080")
