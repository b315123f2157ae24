"""Trainings as jobs of a Ray cluster: the same bytes as on ranks of one host, whatever dies on the way."""

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ranks
import torch
from forks import forked, join_all
from label_studio import free_port
from ray_cluster import RayCluster, let_in, ray_cluster, require_ray_installed
from ray_hosts import wait_until
from safetensors.torch import load_file
from toy_language import COMPUTE, VARIABLE, Tables, sft_spec

from rlhf_dagster.compute.exchange import OWNER_RECORD, Owner, read_record
from rlhf_dagster.compute.launchers.ray_jobs import RayJobs
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.shards.on_ray import rows_on_ray
from rlhf_dagster.compute.shards.task import ShardTask
from rlhf_dagster.compute.work import CANCELLED, TrainingDied, Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.resuming import TrainingStopped
from rlhf_dagster.training.runtime.state_folders import states_in
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import SftSpec, silent, spec_from_json, spec_to_json

pytestmark = pytest.mark.integration
CPUS = 2.0
SECRET = "AKIA0123456789ABCDEF"
Steps = list[int]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    require_ray_installed()
    with ray_cluster(int(CPUS), {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}) as started:
        yield started


@pytest.fixture
def compute(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> ComputeSettings:
    let_in(cluster, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return ComputeSettings(
        threads=1,
        device="cpu",
        launch="ray",
        processes=2,
        checkpoint_seconds=0,
        ray={"address": cluster.address, "environment": {"OUR_FOLDER": "/data"}},
    )


@pytest.fixture
def spec(base: Path, tables: Tables, compute: ComputeSettings, tmp_path: Path) -> SftSpec:
    return replace(sft_spec(base, tables, tmp_path / "work" / "sft" / "output"), compute=compute)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work" / "sft", LocalStore(tmp_path), project="our loop")


def digest_on_two_ranks(spec: SftSpec, folder: Path) -> str:
    """Of the same training on two ranks of this host, without Ray."""
    plain = replace(spec, output=folder / "plain", compute=ComputeSettings(threads=1, device="cpu"))
    (folder / "asked.json").write_text(json.dumps([["sft", spec_to_json(plain), None, ""]]))
    port = free_port()
    join_all([forked(ranks.main, folder / "asked.json", rank, 2, port) for rank in range(2)])
    return folder_digest(plain.output)


def jobs_of(compute: ComputeSettings) -> RayJobs:
    return RayJobs.at(compute.ray.address)


def test_it_has_the_bytes_of_two_ranks_of_one_host_and_no_secret_is_seen(
    spec: SftSpec, work: Work, cluster: RayCluster, tmp_path: Path
) -> None:
    steps: Steps = []
    done = run_training("sft", spec, work, lambda step, *_, **__: steps.append(step))
    assert done.result.folder == work.output
    assert folder_digest(done.result.folder) == digest_on_two_ranks(spec, tmp_path)
    assert steps == [1, 2, 3, 4, 5]
    assert done.usage["seconds"] > 0
    assert done.ray_job == job_of(work)
    assert "world_size=2" in (work.folder / "training.log").read_text()
    assert cluster.answer("/api/jobs/")[0] == 401
    shown = cluster.answer("/api/jobs/", {"Authorization": f"Bearer {cluster.token}"})[1]
    assert "our loop" in shown and "/data" in shown
    for secret in (SECRET, cluster.token):
        assert secret not in shown
        assert not [path for path in cluster.folder.rglob("*.log") if secret in path.read_text(errors="replace")]


@pytest.fixture
def longer(spec: SftSpec) -> SftSpec:
    return replace(spec, settings=spec.settings.changed(epochs=8))


def job_of(work: Work) -> str:
    return read_record(Owner, work.folder / OWNER_RECORD).job


def pid_of_rank(compute: ComputeSettings, work: Work, rank: int) -> int:
    """The process of a rank, which Ray Train has written into the job's log."""
    found: list[str] = []
    while not found:
        found = re.findall(rf"pid=(\d+)\) world_rank={rank},", jobs_of(compute).log(job_of(work)))
    return int(found[-1])


def workers_of(cluster: RayCluster) -> list[int]:
    """Processes of this cluster in which ranks train."""
    raylets = [process for process in psutil.process_iter() if str(cluster.folder) in " ".join(command_of(process))]
    below = [child for raylet in raylets if raylet.name() == "raylet" for child in raylet.children(recursive=True)]
    return [child.pid for child in below if "RayTrainWorker" in " ".join(command_of(child))]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def reached(work: Work) -> int:
    """The last step of which there is a state."""
    return int(states_in(work.state)[-1].name.removeprefix("state-"))


@pytest.mark.long
def test_a_rank_that_is_killed_costs_no_byte(longer: SftSpec, work: Work, tmp_path: Path) -> None:
    steps: Steps = []

    def kill_a_rank(step: int, *_: int, **__: float) -> None:
        if step >= 10 and not killed:
            killed.append(step)
            os.kill(pid_of_rank(longer.compute, work, 1), signal.SIGKILL)
        steps.append(step)

    killed: Steps = []
    done = run_training("sft", longer, work, kill_a_rank)
    assert (work.folder / "training.log").read_text().count("Started training worker group") == 2
    assert folder_digest(done.result.folder) == digest_on_two_ranks(longer, tmp_path)
    assert sorted(set(steps)) == list(range(1, 41))


@pytest.mark.long
def test_a_driver_that_is_killed_takes_its_ranks_with_it_and_the_next_try_goes_on(
    longer: SftSpec, work: Work, cluster: RayCluster
) -> None:
    def kill_the_driver(step: int, *_: int, **__: float) -> None:
        if step == 10:
            drivers = [
                one.pid for one in psutil.process_iter() if "rlhf_dagster.compute.launchers.ray_job" in command_of(one)
            ]
            os.kill(drivers[0], signal.SIGKILL)

    with pytest.raises(TrainingDied, match="of sft ended"):
        run_training("sft", longer, work, kill_the_driver)
    before, steps = job_of(work), []
    wait_until(lambda: workers_of(cluster) == [])
    kept = reached(work)
    assert kept >= 10
    run_training("sft", longer, work, lambda step, *_, **__: steps.append(step))
    assert steps[0] == kept + 1 and job_of(work) != before


@pytest.mark.long
def test_a_cancelled_run_leaves_a_state_and_no_process(longer: SftSpec, work: Work, cluster: RayCluster) -> None:
    def cancel(step: int, *_: int, **__: float) -> None:
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training("sft", longer, work, cancel)
    assert jobs_of(longer.compute).status(job_of(work)) == "SUCCEEDED"  # it ended by itself, within its grace
    assert workers_of(cluster) == []
    kept, steps = reached(work), []
    assert 10 <= kept < 40
    run_training("sft", longer, work, lambda step, *_, **__: steps.append(step))
    assert steps[0] == kept + 1


@pytest.mark.long
def test_the_job_of_a_run_that_was_killed_is_followed_further(longer: SftSpec, work: Work, tmp_path: Path) -> None:
    """The job is slow enough to be there still when the next run comes."""
    slow = replace(longer, settings=longer.settings.changed(epochs=200))
    (tmp_path / "spec.json").write_text(spec_to_json(slow))
    run = forked(run_until_killed, tmp_path / "spec.json", work.folder)
    wait_until(lambda: states_in(work.state))
    before = job_of(work)
    os.kill(run.pid or 0, signal.SIGKILL)
    steps: Steps = []

    def enough(step: int, *_: int, **__: float) -> None:
        steps.append(step)
        if len(steps) == 1:
            assert job_of(work) == before
        if step >= 100:
            (work.folder / CANCELLED).write_text("that is enough")

    with pytest.raises(TrainingStopped, match="that is enough"):
        run_training("sft", slow, work, enough)
    assert steps == list(range(1, steps[-1] + 1))
    assert job_of(work) == before


def run_until_killed(spec: Path, folder: Path) -> None:
    run_training("sft", spec_from_json(SftSpec, spec.read_text(), "spec"), Work(folder, LocalStore(folder)), silent)


@pytest.mark.long
def test_where_there_is_no_room_for_two_one_rank_trains(longer: SftSpec, work: Work, tmp_path: Path) -> None:
    """Batches are those of all ranks together. Biases of keys have no gradient but rounding's, which Adam scales up."""
    asked = longer.compute.ray.changed(per_process={"CPU": CPUS}, fewest_processes=1)
    done = run_training("sft", replace(longer, compute=longer.compute.changed(ray=asked.model_dump())), work, silent)
    assert "world_size=1" in (work.folder / "training.log").read_text()
    digest_on_two_ranks(longer, tmp_path)
    one, two = (load_file(folder / "model.safetensors") for folder in (done.result.folder, tmp_path / "plain"))
    for tensors in (one, two):
        queries, _, values = tensors["transformer.h.0.attn.c_attn.bias"].chunk(3)
        tensors["transformer.h.0.attn.c_attn.bias"] = torch.cat([queries, values])
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


@pytest.mark.long
def test_two_trainings_share_the_cluster_and_a_third_waits_for_room(spec: SftSpec, tmp_path: Path) -> None:
    one = replace(spec, compute=spec.compute.changed(processes=1))
    works = [Work(tmp_path / "several" / str(number), LocalStore(tmp_path)) for number in range(3)]
    with ThreadPoolExecutor(len(works)) as pool:
        done = list(pool.map(lambda work: run_training("sft", replace(one, output=work.output), work, silent), works))
    assert len({folder_digest(trained.result.folder) for trained in done}) == 1


@pytest.mark.long
def test_samples_are_drawn_on_nodes(base: Path, tables: Tables, compute: ComputeSettings, tmp_path: Path) -> None:
    prompts = read_parquet(tables.prompts).to_pandas()["text"].tolist()[:30]
    sampling, steps = VARIABLE.changed(batch_size=16), []
    task = ShardTask("samples", base, prompts, sampling, compute, seed=5, n=2)
    work = Work(tmp_path / "work" / "shards", LocalStore(tmp_path))
    rows = rows_on_ray(task, work, lambda step, *_, **__: steps.append(step))
    plain = sample(base, prompts, sampling, 5, 2, compute=COMPUTE)
    assert rows == [[one.text, one.token_ids, one.log_probs] for one in plain]
    assert steps == [1, 2, 3, 4]
