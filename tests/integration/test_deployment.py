"""The services of deploy/compose, started by hand, take a loop through a round; it is the round of one machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import psycopg
import pytest
from deployed import Deployment
from integration.dagster_api import DagsterApi, wait_until
from label_studio import require_label_studio
from loops import ROUND, checkpoint
from object_server import S3Server
from postgres import PostgresServer, require_postgres

from rlhf_dagster.cli.runner import LoopRunner

pytestmark = [pytest.mark.integration, pytest.mark.long]
AUTOMATION = {"running": True, "open_round_cron": "0 0 1 1 *", "min_new_labels": 10, "quiet_minutes": 0}


@pytest.fixture
def deployment(tmp_path: Path, s3: S3Server, base_model_cache: Path) -> Iterator[Deployment]:
    require_label_studio()
    programs = require_postgres()
    with TemporaryDirectory(prefix="rlhf-postgres-") as folder:
        database = PostgresServer(programs, Path(folder))
        database.start()
        made = Deployment(tmp_path, database, s3, base_model_cache)
        try:
            made.prepare(automation=AUTOMATION)
            yield made
        finally:
            made.stop()
            database.stop()


def test_a_round_on_the_services_of_compose(deployment: Deployment, finished: LoopRunner) -> None:
    deployment.start("label-studio", "code", "daemon", "web")
    api = DagsterApi(deployment.address, "team_rlhf")
    assert api.wait(api.launch("prepare")) == "SUCCESS"
    opened = rlhf(deployment, "round", "open")
    assert "round-0001 is open" in opened, opened
    # Sensors of the code server, which the daemon asks, open the round and see its labels.
    wait_until(lambda: of_job(api, "train_round") == ["STARTED"])
    assert of_job(api, "collect_round") == ["SUCCESS"]
    deployment.kill("daemon", "web", "code")
    assert len(deployment.found("execute_run")) >= 1
    assert deployment.shown() == {}
    deployment.start("code", "daemon", "web")
    wait_until(lambda: "STARTED" not in of_job(api, "train_round"))
    assert of_job(api, "train_round") == ["SUCCESS"]
    _is_the_round_of_one_machine(deployment, finished)
    _is_kept_where_it_should_be(deployment)
    assert deployment.shown() == {}


def of_job(api: DagsterApi, job: str) -> list[str]:
    return [status for name, status in api.runs().values() if name == job]


def rlhf(deployment: Deployment, *arguments: str) -> str:
    """A command in the daemon's container; the project around its working folder declares the loop."""
    from sys import executable

    done = deployment.run("daemon", str(Path(executable).with_name("rlhf")), *arguments, "--loop", "small")
    assert done.returncode == 0, done.stderr
    return done.stdout


def _is_the_round_of_one_machine(deployment: Deployment, finished: LoopRunner) -> None:
    (row,) = json.loads(rlhf(deployment, "round", "status", "--json"))
    assert (row["round"], row["promoted"]) == (ROUND, True)
    store = boto3.client("s3")
    for asset in ("reward_model", "ppo_policy"):
        found = store.get_object(Bucket="rlhf", Key=f"loops/sentiment/assets/{asset}/{ROUND}.json")
        assert checkpoint(finished.loop, asset, ROUND).digest in found["Body"].read().decode()


def _is_kept_where_it_should_be(deployment: Deployment) -> None:
    """Files and logs in the bucket, labels and runs in Postgres, people's pages in a database of Label Studio's."""
    keys = [one["Key"] for one in boto3.client("s3").list_objects_v2(Bucket="rlhf")["Contents"]]
    assert {key.split("/")[0] for key in keys} == {"loops", "dagster"}
    server = f"host=127.0.0.1 port={deployment.database.port} user=rlhf"
    for database, table in (("ledger", "small.annotations"), ("dagster", "runs"), ("label_studio", "task_completion")):
        with psycopg.connect(f"{server} dbname={database}") as connection:
            (rows,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
        assert rows > 0, table
