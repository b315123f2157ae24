"""Models in parts (`compute.sharding: full`) as jobs of a Ray cluster: the bytes of ranks of one host, and states that
another number of ranks goes on from."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import RayCluster, let_in, ray_cluster, require_ray_installed
from sharded_cases import IN_PARTS, Models, Spec, Train, require_the_same, sharded, spec_of_case
from test_on_ray import pid_of_rank
from test_ranks import train_on_ranks
from toy_language import COMPUTE, Tables

from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.compute.work import Trained, Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import OnStep, silent

pytestmark = [pytest.mark.integration, pytest.mark.long]
CPUS = 2
"""Tickets, of which two ranks have half of one each and four have all."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    require_ray_installed()
    with ray_cluster(CPUS, {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}) as started:
        yield started


@pytest.fixture
def compute(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> ComputeSettings:
    let_in(cluster, monkeypatch)
    return on_ray(cluster.address, 2)


@pytest.fixture(scope="module")
def spec(base: Path, deep_sft: Path, deep_reward: Path, tables: Tables) -> Spec:
    return partial(spec_of_case, Models(base, deep_sft, deep_reward), tables)


@pytest.fixture(scope="module")
def alone(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Train:
    folder = tmp_path_factory.mktemp("alone")
    return cache(lambda case: train_here(*spec(case, folder / case), silent, KEEP_NOTHING))


def on_ray(address: str, processes: int, **asked: Any) -> ComputeSettings:
    return ComputeSettings(
        threads=1,
        device="cpu",
        launch="ray",
        processes=processes,
        sharding="full",
        checkpoint_seconds=0,
        ray={"address": address, "per_process": {"CPU": 0.5}} | asked,
    )


def train(case: tuple[str, Any], compute: ComputeSettings, folder: Path, progress: OnStep = silent) -> Trained:
    stage, trained = case
    work = work_in(folder)
    return run_training(stage, replace(trained, compute=compute, output=work.output), work, progress)


def work_in(folder: Path) -> Work:
    return Work(folder / "work", LocalStore(folder))


def require_alone(done: Trained, expected: Any) -> None:
    result = done.result
    require_the_same({"curves": result.curves, "metrics": result.metrics}, result.folder, expected)


@pytest.mark.parametrize("case", ["sft", "reward_model", "dpo", "separate", "lora"])
def test_parts_on_ray_have_the_bytes_of_parts_on_one_host(
    case: str,
    spec: Spec,
    alone: Train,
    compute: ComputeSettings,
    tmp_path: Path,
) -> None:
    done = train(spec(case, tmp_path / "output"), compute, tmp_path)
    assert "world_size=2" in (work_in(tmp_path).folder / "training.log").read_text()
    train_on_ranks(tmp_path, [sharded(spec(case, tmp_path / "on_one_host"))])
    assert folder_digest(done.result.folder) == folder_digest(tmp_path / "on_one_host")
    require_alone(done, alone(case))


@pytest.mark.parametrize(("case", "begun_on", "goes_on_with"), [("sft", 2, 4), ("separate", 4, 1), ("separate", 1, 2)])
def test_it_goes_on_from_the_state_of_another_number_of_ranks(
    case: str, begun_on: int, goes_on_with: int, spec: Spec, alone: Train, compute: ComputeSettings, tmp_path: Path
) -> None:
    """Where the cluster has no room for two, one trains alone, and has nothing to divide."""
    trained, state = spec(case, tmp_path / "output"), work_in(tmp_path).state
    steps: list[int] = []
    begun = sharded(
        trained, IN_PARTS.changed(processes=begun_on) if begun_on > 1 else COMPUTE, state=state, reason="so far"
    )
    for outcome in train_on_ranks(tmp_path, [begun], begun_on):
        assert outcome[0]["stopped"] == "so far"
    address, room = compute.ray.address, {"per_process": {"CPU": float(CPUS)}, "fewest_processes": 1}
    asked = on_ray(address, goes_on_with) if goes_on_with > 1 else on_ray(address, 2, **room)
    done = train(trained, asked, tmp_path, lambda step, *_, **__: steps.append(step))
    assert f"world_size={goes_on_with}" in (work_in(tmp_path).folder / "training.log").read_text()
    assert steps[0] == 2
    require_alone(done, alone(case))


def test_a_rank_that_is_killed_costs_no_byte_of_a_training_in_parts(
    spec: Spec,
    compute: ComputeSettings,
    tmp_path: Path,
) -> None:
    trained = spec("separate", tmp_path / "output")
    killed: list[int] = []

    def kill_a_rank(step: int, *_: int, **__: float) -> None:
        if not killed and step == 2:
            killed.append(step)
            os.kill(pid_of_rank(compute, work_in(tmp_path), 1), signal.SIGKILL)

    done = train(trained, compute, tmp_path, kill_a_rank)
    assert (work_in(tmp_path).folder / "training.log").read_text().count("Started training worker group") == 2
    train_on_ranks(tmp_path, [sharded(spec("separate", tmp_path / "unbroken"))])
    assert folder_digest(done.result.folder) == folder_digest(tmp_path / "unbroken")
