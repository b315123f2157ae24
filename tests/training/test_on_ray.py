"""Trainings as jobs of a Ray cluster: the same bytes as on ranks of one host, whatever dies on the way."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ranks
from forks import forked, join_all
from label_studio import free_port
from ray_cluster import RayCluster, ray_cluster, require_ray_installed
from toy_language import Tables, sft_spec

from rlhf_dagster.compute.launchers.ray_jobs import RayJobs
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.work import Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.specs import SftSpec, spec_to_json

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
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
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
    assert "world_size=2" in (work.folder / "training.log").read_text()
    assert cluster.answer("/api/jobs/")[0] == 401
    shown = cluster.answer("/api/jobs/", {"Authorization": f"Bearer {cluster.token}"})[1]
    assert "our loop" in shown and "/data" in shown
    for secret in (SECRET, cluster.token):
        assert secret not in shown
        assert not [path for path in cluster.folder.rglob("*.log") if secret in path.read_text(errors="replace")]
