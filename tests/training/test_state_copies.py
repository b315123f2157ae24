"""States in a loop's bucket: another machine goes on from them, and no training fails for them."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from object_server import S3Server
from toy_language import COMPUTE, TINY, Tables

from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.compute.work import Work
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.lineage.stop_cord import pull, reset
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.storage.objects import ObjectStore
from rlhf_dagster.training.runtime import state_copies
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.state_copies import StateCopies
from rlhf_dagster.training.runtime.state_folders import STATE_RECORD, states_in
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.specs import TinyModelSpec

CPU = torch.device("cpu")
COPIES = "work/sft/state"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket() -> ObjectStore:
    return ObjectStore(f"memory://{uuid.uuid4().hex}")


def keeper_on(machine: Path, bucket: ObjectStore, identity: str = "a") -> StateKeeper:
    return StateKeeper(Checkpointing(machine, 0.0, copies=StateCopies(bucket, COPIES)), identity)


def test_another_machine_goes_on_from_the_newest_state(tmp_path: Path, bucket: ObjectStore) -> None:
    one = keeper_on(tmp_path / "one", bucket)
    for step in (1, 2, 3):
        one.after_step(step, lambda: {"step": step})  # noqa: B023
    assert {key.split("/")[3] for key in bucket.list(COPIES)} == {"state-000000003"}
    two = keeper_on(tmp_path / "two", bucket)
    assert two.load(CPU) == {"step": 3}
    two.after_step(4, lambda: {"step": 4})
    assert keeper_on(tmp_path / "one", bucket).load(CPU) == {"step": 4}
    assert [state.name for state in states_in(tmp_path / "two")] == ["state-000000004"]


def test_what_this_machine_has_is_used_where_it_is_newer(tmp_path: Path, bucket: ObjectStore) -> None:
    keeper_on(tmp_path / "one", bucket).after_step(3, lambda: {"step": 3})
    StateKeeper(Checkpointing(tmp_path / "two", 0.0), "a").after_step(5, lambda: {"step": 5})
    assert keeper_on(tmp_path / "two", bucket).load(CPU) == {"step": 5}


def test_a_state_of_another_training_is_not_gone_on_from(tmp_path: Path, bucket: ObjectStore) -> None:
    keeper_on(tmp_path / "one", bucket, "a").after_step(3, lambda: {"step": 3})
    other = keeper_on(tmp_path / "two", bucket, "b")
    assert other.newest() is None
    other.after_step(1, lambda: {"step": 1})
    assert {key.split("/")[3] for key in bucket.list(COPIES)} == {"state-000000001"}


def test_a_copy_that_is_half_there_or_damaged_is_not_used(
    tmp_path: Path, bucket: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    keeper_on(tmp_path / "one", bucket).after_step(2, lambda: {"step": 2})
    bucket.put(f"{COPIES}/state-000000007/state.pt", b"the upload of this one was killed")
    assert keeper_on(tmp_path / "two", bucket).load(CPU) == {"step": 2}
    key = f"{COPIES}/state-000000002/state.pt"
    found = bucket.get(key)
    assert found is not None
    bucket.put(key, found.data[:-1] + bytes([found.data[-1] ^ 1]))
    assert keeper_on(tmp_path / "three", bucket).newest() is None
    assert f"{COPIES}/state-000000002 is damaged (state.pt is not what was written)" in caplog.text
    assert not list((tmp_path / "three").glob(".state-*"))


def test_a_damaged_state_here_is_replaced_by_its_copy(
    tmp_path: Path, bucket: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    keeper_on(tmp_path, bucket).after_step(4, lambda: {"step": 4})
    (tmp_path / "state-000000004" / STATE_RECORD).write_bytes(b"")
    assert keeper_on(tmp_path, bucket).load(CPU) == {"step": 4}
    assert "goes on from the state after step 4, and does 0 steps again" in caplog.text


def test_no_training_fails_for_a_copy(
    tmp_path: Path, bucket: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[str] = []

    def away(*_: Any) -> None:
        tries.append("")
        raise UserError("memory://x gives no answer (timeout); check the network.")

    for name in ("upload", "list", "delete"):
        monkeypatch.setattr(ObjectStore, name, away)
    keeper = keeper_on(tmp_path, bucket)
    assert keeper.newest() is None
    assert "States of other machines are not looked for: memory://x gives no answer" in caplog.text
    keeper.after_step(1, lambda: {"step": 1})
    assert "state-000000001 is kept on this machine alone: memory://x gives no answer" in caplog.text
    asked = len(tries)
    keeper.after_step(2, lambda: {"step": 2})
    assert len(tries) == asked  # a store that is away is not waited for at every state
    monkeypatch.setattr(state_copies.time, "monotonic", lambda: 1e9)
    keeper.after_step(3, lambda: {"step": 3})
    assert len(tries) == asked + 1
    StateCopies(bucket, COPIES).clear()
    assert f"{COPIES} was not removed" in caplog.text


@pytest.mark.parametrize("launch", ["in_process", pytest.param("process", marks=pytest.mark.long)])
def test_a_training_goes_on_on_another_machine(
    launch: str, tables: Tables, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Stopped on one machine after a step and taken up on another, it ends with the model that it would have had."""
    address = f"memory://{uuid.uuid4().hex}"
    if launch == "process":  # which has another memory
        server: S3Server = request.getfixturevalue("s3")
        address = f"s3://{server.new_bucket()}/loop"
    store = open_store(address)
    works = [Work(tmp_path / machine / "work" / "tiny_model", store) for machine in ("one", "two")]
    compute = COMPUTE.changed(launch=launch, checkpoint_seconds=3600)
    spec = TinyModelSpec(tables.text, works[0].output, TINY.changed(steps=12), compute)
    steps: list[int] = []

    def progress(step: int, *_: int, **__: float) -> None:
        steps.append(step)

    pull(store, "Ada", "that is enough")
    with pytest.raises(TrainingStopped, match="that is enough"):
        run_training("tiny_model", spec, works[0], progress)
    reset(store, "Ada")
    reached = steps[-1]
    assert f"work/tiny_model/state/state-{reached:09d}/{STATE_RECORD}" in store.list("work")
    done = run_training("tiny_model", replace(spec, output=works[1].output), works[1], progress)
    assert steps == list(range(1, 13))
    whole = train_here("tiny_model", replace(spec, output=tmp_path / "whole"), progress, KEEP_NOTHING)
    assert folder_digest(done.result.folder) == folder_digest(whole.folder)
    works[1].clear()
    assert store.list("work") == []
