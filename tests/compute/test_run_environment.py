"""What a training in a child process is given of the environment: no secret but those that it needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.common.child_processes import SAFE_PATH
from rlhf_dagster.compute import memory
from rlhf_dagster.compute.launchers import child_process
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.work import Work
from rlhf_dagster.config.judging.reward import EnsembleReward
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.specs import PpoSpec, Spec, TinyModelSpec

SECRETS = ("LABEL_STUDIO_API_KEY", "RLHF_NOTIFY_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "JUDGE_A_KEY", "OUR_KEY")
COMPUTE = {"launch": "process", "device": "cpu"}


class StartedError(Exception):
    """In place of the start of a child."""


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("OUR_FOLDER", "/data")

    @contextmanager
    def guarded(command: list[str], *arguments: Any) -> Iterator[None]:
        raise StartedError(command, arguments[3])
        yield

    monkeypatch.setattr(child_process, "guarded", guarded)
    monkeypatch.setattr(memory, "require_memory", lambda spec: None)


def started(spec: Spec, tmp_path: Path, store: Store | None = None) -> tuple[list[str], dict[str, str]]:
    """Command and environment with which a child would be started."""
    with pytest.raises(StartedError) as found:
        run_training("tiny_model", spec, Work(tmp_path / "work", store or LocalStore(tmp_path)), print)
    command, environment = found.value.args
    return command, environment


def secrets_in(environment: dict[str, str]) -> set[str]:
    return set(SECRETS) & environment.keys()


def test_a_training_inherits_no_secret(tmp_path: Path) -> None:
    spec = TinyModelSpec(tmp_path, tmp_path, compute=ComputeSettings(**COMPUTE))
    command, environment = started(spec, tmp_path)
    assert command[1] == "-P" and environment[SAFE_PATH] == "1"
    assert (secrets_in(environment), environment["OUR_FOLDER"]) == (set(), "/data")


def test_it_has_those_that_its_owner_passes(tmp_path: Path) -> None:
    spec = TinyModelSpec(tmp_path, tmp_path, compute=ComputeSettings(**COMPUTE, pass_variables=["OUR_KEY"]))
    assert secrets_in(started(spec, tmp_path)[1]) == {"OUR_KEY"}


def test_it_has_the_key_of_its_judge(tmp_path: Path) -> None:
    service = {"url_variable": "JUDGE_A_URL", "key_variable": "JUDGE_A_KEY"}
    reward = EnsembleReward(
        kind="ensemble", parts=[{"kind": "length", "longest": 9}, {"kind": "http", "model": "m", "service": service}]
    )
    spec = PpoSpec(
        tmp_path, tmp_path, None, tmp_path, None, tmp_path, compute=ComputeSettings(**COMPUTE), reward=reward
    )
    assert secrets_in(started(spec, tmp_path)[1]) == {"JUDGE_A_KEY"}


def test_it_has_the_keys_of_the_store_that_gets_its_states(tmp_path: Path) -> None:
    spec = TinyModelSpec(tmp_path, tmp_path, compute=ComputeSettings(**COMPUTE))
    store = open_store("memory://environment/loop")
    assert secrets_in(started(spec, tmp_path, store)[1]) == {"AWS_SECRET_ACCESS_KEY"}
