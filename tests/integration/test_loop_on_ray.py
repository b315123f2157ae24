"""A loop in a bucket, labels and records in Postgres, that trains on two hosts of Ray: the champion of one machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from loops import ROUND, checkpoint, open_runner, run_missing, write_loop
from object_server import S3Server, s3_server
from postgres import USER, PostgresServer
from ray_cluster import let_in
from ray_hosts import Hosts, hosts, wait_until
from sqlalchemy.exc import SQLAlchemyError

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.execution import RunOutcome
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.summary import champion

pytestmark = [pytest.mark.integration, pytest.mark.long]
TWO_RANKS = {"threads": 1, "processes": 2, "checkpoint_seconds": 0}
LONGER = {"sft": {"epochs": 4}, "ppo": {"updates": 10}}
"""Long enough to lose a host on the way."""
MODELS = {"base_model": "", "sft_checkpoint": "", "reward_model": ROUND, "ppo_policy": ROUND}
TRIES = 5
AWAY = 10.0
"""Seconds for which the bucket's server answers nothing."""


@dataclass
class Elsewhere:
    """A loop's folder, what it works on, and what happened to that."""

    folder: Path
    ray: Hosts
    postgres: PostgresServer
    s3: S3Server
    happened: list[str] = field(default_factory=list)

    def disturb(self) -> None:
        """Kill the second host as SFT has a state, and again as PPO has; have both servers away between."""
        self._lose_host_in("sft")
        self.postgres.stop()
        self.postgres.start()
        self.s3.hold(AWAY)
        self.s3.restart()
        self._lose_host_in("ppo")

    def _lose_host_in(self, stage: str) -> None:
        wait_until(lambda: list(self.folder.glob(f"work/{stage}*/state/state-*")))
        ranks = [len(self.ray.ranks(number)) for number in (1, 2)]
        self.ray.lose(2)
        self.ray.start(2)
        self.happened.append(f"{stage}: {ranks}")


@pytest.fixture
def elsewhere(
    base_model_cache: Path, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Elsewhere]:
    with hosts(2) as ray, s3_server(f"{ray.network}.254") as s3:
        for name, value in {**s3.environment, "LEDGER_OF_THIS_TEST": postgres.address()}.items():
            monkeypatch.setenv(name, value)
        let_in(ray.cluster, monkeypatch)
        ray.start(1)
        ray.start(2)
        asked = {"address": ray.cluster.address, "environment": {"GLOO_SOCKET_IFNAME": "eth0"}, "restarts": 5}
        compute = TWO_RANKS | {"launch": "ray", "ray": asked}
        address = f"s3://{s3.new_bucket()}/loops/small"
        folder = write_loop(tmp_path / "loop", root=address, ledger="${LEDGER_OF_THIS_TEST}", compute=compute, **LONGER)
        storage = {"postgres_url": f"postgresql+psycopg2://{USER}@127.0.0.1:{postgres.port}/postgres"}
        (folder / "dagster").mkdir()
        (folder / "dagster" / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": storage}}))
        yield Elsewhere(folder, ray, postgres, s3)


def test_the_champion_is_that_of_two_ranks_of_one_host(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write_loop(tmp_path / "plain", compute=TWO_RANKS | {"launch": "process"}, **LONGER)
    taken_through(plain, tmp_path / "caches" / "plain", monkeypatch)
    disturbed = Thread(target=elsewhere.disturb, daemon=True)
    disturbed.start()
    taken_through(elsewhere.folder, tmp_path / "caches" / "elsewhere", monkeypatch)
    disturbed.join()
    assert elsewhere.happened == ["sft: [1, 1]", "ppo: [1, 1]"]
    assert digests(elsewhere.folder) == digests(plain)
    assert not elsewhere.ray.ranks(1) and not elsewhere.ray.ranks(2)
    jobs = [job_of(elsewhere.folder, asset) for asset in MODELS]
    assert all(jobs) and len(set(jobs)) == len(MODELS)


def taken_through(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a round, with a base model of its own.

    A server that is away may fail a job, which a person, or the daemon, runs again.
    """
    monkeypatch.setenv("RLHF_CACHE", str(cache))
    done_in_some_tries(folder, "prepare", None)
    assert open_next_round(open_runner(folder).instance, LoopFolder.open(folder)) == ROUND
    for job in ("collect_round", "train_round"):
        done_in_some_tries(folder, job, ROUND)


def done_in_some_tries(folder: Path, job: str, key: str | None) -> None:
    said: list[RunOutcome | SQLAlchemyError] = []
    while len(said) < TRIES:
        try:
            said.append(run_missing(open_runner(folder), job, key))
        except SQLAlchemyError as error:
            said.append(error)
        if isinstance(said[-1], RunOutcome) and said[-1].success:
            return
    raise AssertionError(f"{job}: {said}")


def digests(folder: Path) -> dict[str, Any]:
    """Of all models, and which one is the champion."""
    loop = LoopFolder.open(folder)
    models = {asset: checkpoint(loop, asset, key).digest for asset, key in MODELS.items()}
    return models | {"champion": champion(loop)}


def job_of(folder: Path, asset: str) -> str:
    """The job of Ray that trained a model, by what Dagster knows of it."""
    from dagster import AssetKey

    event = open_runner(folder).instance.get_latest_materialization_event(AssetKey(asset))
    assert event and event.asset_materialization
    return str(event.asset_materialization.metadata["ray_job"].value)
