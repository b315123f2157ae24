"""A loop of version 0.1 is brought up to date, once, whatever happens on the way; a newer one is refused."""

import json
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_dagster.common.sealed import FORMAT, checksum, seal, unseal
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.formats import FORMAT_FILE, OLD, bring_up_to_date, prepare_store
from rlhf_dagster.lineage.model_folders import content_of
from rlhf_dagster.lineage.registry import PolicyRegistry
from rlhf_dagster.lineage.stop_cord import pull, resumes
from rlhf_dagster.records.parquet import is_sealed
from rlhf_dagster.storage.local import LocalStore

CHANGES = [
    {"policy_id": "sft", "round_key": "", "action": "initial", "by": "loop", "reason": "begins", "at": "2026-01-01"},
    {
        "policy_id": "p1",
        "round_key": "round-0001",
        "action": "promotion",
        "by": "gate",
        "reason": "ü",
        "at": "2026-01-02",
    },
]
APPROVAL = {
    "round_key": "round-0001",
    "policy_id": "p1",
    "by": "ada",
    "reason": "good",
    "at": "2026-01-02",
    "anyway": False,
}
STOPS = [
    {"action": "stop", "by": "a", "reason": "b", "at": "c"},
    {"action": "resume", "by": "a", "reason": "", "at": "d"},
]


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def old(tmp_path: Path) -> LocalStore:
    """What version 0.1 has left."""
    write_lines(tmp_path / "registry" / "history.jsonl", CHANGES)
    write_lines(tmp_path / "registry" / "approvals.jsonl", [APPROVAL])
    write_lines(tmp_path / "stops.jsonl", STOPS)
    policy = {
        "policy_id": "p1",
        "checkpoint": "models/p1",
        "kind": "ppo",
        "round_key": "round-0001",
        "parents": ["sft"],
    }
    for key, content in {
        "registry/policies/p1.json": policy,
        "registry/pins/round-0001.json": {"round": "round-0001", "policy_id": "sft", "at": "x"},
        "assets/eval_report/round-0001.json": {"policy_id": "p1"},
        "models/p1/manifest.json": {"kind": "ppo"},
    }.items():
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) + "\n")
    pq.write_table(pa.table({"prompt_id": ["a"]}), tmp_path / "assets" / "prompts.parquet")
    return LocalStore(tmp_path)


def require_migrated(store: LocalStore) -> None:
    registry = PolicyRegistry(store)
    assert [entry.policy_id for entry in registry.history()] == ["sft", "p1"]
    assert registry.history()[1].reason == "ü"
    assert registry.champion().policy_id == "p1"
    assert [entry.by for entry in registry.approvals()] == ["ada"]
    assert resumes(store) == 1
    assert registry.pinned("round-0001") == "sft"
    assert registry.get("p1").parents == ("sft",)
    assert all(journal.problems() == [] for journal in registry.journals())
    assert unseal(store.get("assets/eval_report/round-0001.json").data, "report") == {"policy_id": "p1"}
    for key in ("assets/eval_report/round-0001.json", "models/p1/manifest.json", "registry/pins/round-0001.json"):
        assert b"_sha256" in store.get(key).data
    assert is_sealed(store.get("assets/prompts.parquet").data)
    assert store.list(OLD) == [f"{OLD}/registry/approvals.jsonl", f"{OLD}/registry/history.jsonl", f"{OLD}/stops.jsonl"]
    assert not store.exists("registry/history.jsonl")
    assert unseal(store.get(FORMAT_FILE).data, FORMAT_FILE)


def test_an_old_loop_is_brought_up_to_date_and_says_so(old, caplog) -> None:
    before = content_of(old.root / "assets" / "prompts.parquet")
    bring_up_to_date(old)
    require_migrated(old)
    assert "was brought from format 0 (version 0.1) to format 1" in caplog.text
    assert content_of(old.root / "assets" / "prompts.parquet") == before


def test_a_second_time_changes_nothing(old) -> None:
    bring_up_to_date(old)
    files = {key: old.get(key).data for key in old.list()}
    bring_up_to_date(old)
    prepare_store(old)
    assert {key: old.get(key).data for key in old.list()} == files


@pytest.mark.parametrize("calls", range(1, 40))
def test_interrupted_anywhere_the_next_command_finishes_it(old, monkeypatch, calls: int) -> None:
    left = [calls]

    def counted(verb: str) -> object:
        original = getattr(LocalStore, verb)

        def call(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        for verb in ("put", "create", "replace", "delete"):
            patch.setattr(LocalStore, verb, counted(verb))
        with suppress(KeyboardInterrupt):
            bring_up_to_date(old)
    bring_up_to_date(old)
    require_migrated(old)


def test_a_torn_last_line_is_left_out_and_said(old, caplog) -> None:
    with (old.root / "registry" / "history.jsonl").open("ab") as file:
        file.write(b'{"policy_id": "p2", "round')
    bring_up_to_date(old)
    assert PolicyRegistry(old).champion().policy_id == "p1"
    assert f"Line 3 of registry/history.jsonl is damaged; it is left out, and kept in {OLD}" in caplog.text


def test_a_line_separator_in_a_reason_is_no_end_of_a_line(old) -> None:
    write_lines(old.root / "stops.jsonl", [STOPS[0] | {"reason": "one\u2028two\u2029three\x85four"}, STOPS[1]])
    bring_up_to_date(old)
    assert resumes(old) == 1


def test_a_damaged_report_is_left_and_said(old, caplog) -> None:
    (old.root / "assets" / "eval_report" / "round-0001.json").write_text("{")
    (old.root / "assets" / "prompts.parquet").write_bytes(b"x" * 20)
    bring_up_to_date(old)
    assert "assets/eval_report/round-0001.json is damaged" in caplog.text
    assert "assets/prompts.parquet is no Parquet table" in caplog.text


def test_a_newer_loop_is_refused_and_not_touched(old) -> None:
    record = {"rlhf_dagster": "9.0", "_format": FORMAT + 1}
    old.put(FORMAT_FILE, json.dumps(record | {"_sha256": checksum(record)}).encode())
    before = old.list()
    for call in (bring_up_to_date, prepare_store):
        with pytest.raises(UserError, match=f"format.json has format {FORMAT + 1}"):
            call(old)
    assert old.list() == before


def test_a_new_folder_is_not_touched_before_something_is_made(tmp_path) -> None:
    store = LocalStore(tmp_path / "new")
    bring_up_to_date(store)
    assert not store.root.exists()
    prepare_store(store)
    assert store.list() == [FORMAT_FILE]


def test_a_record_of_a_newer_release_is_refused(old) -> None:
    bring_up_to_date(old)
    record = {"policy_id": "p9", "_format": FORMAT + 1}
    old.put("registry/pins/round-0002.json", json.dumps(record | {"_sha256": checksum(record)}).encode())
    with pytest.raises(UserError, match="install the release that wrote it"):
        PolicyRegistry(old).pinned("round-0002")
    assert seal({})


def test_a_loop_that_was_stopped_before_anything_else_is_new(tmp_path, caplog) -> None:
    store = LocalStore(tmp_path)
    pull(store, "Ada", "not yet")
    bring_up_to_date(store)
    assert caplog.text == ""
    prepare_store(store)
    assert store.exists(FORMAT_FILE)
