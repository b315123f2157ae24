"""deploy/postgres: Dagster's instance on a real Postgres, and the databases that a new server gets."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from compose_file import COMPOSE, DEPLOY
from dagster._core.instance import InstanceRef
from label_studio import free_port
from postgres import PostgresServer

from rlhf_dagster.automation.instance import readable_records
from rlhf_dagster.automation.launcher import ProcessRunLauncher
from rlhf_dagster.errors import UserError

PASSWORDS = {name: f"of {name}'s own" for name in ("DAGSTER_PG", "LEDGER_PG", "LABEL_STUDIO_PG")}
"""With a space and a quote, as generated ones may have."""


@pytest.fixture(scope="module")
def databases(postgres: PostgresServer) -> PostgresServer:
    """The server after it has read databases.sql."""
    given = {f"{name}_PASSWORD": password for name, password in PASSWORDS.items()}
    where = ["-h", "127.0.0.1", "-p", str(postgres.port), "-U", "rlhf", "-d", "postgres"]
    command = [str(postgres.programs / "psql"), *where, "-f", str(COMPOSE / "databases.sql")]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not any(password in done.stdout + done.stderr for password in PASSWORDS.values())
    return postgres


@pytest.fixture
def home(databases: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the instance's settings, which finds the server where the test has it."""
    text = (DEPLOY / "postgres" / "dagster.yaml").read_text(encoding="utf-8")
    assert text.count("port: 5432") == 1
    (tmp_path / "dagster.yaml").write_text(text.replace("port: 5432", f"port: {databases.port}"), encoding="utf-8")
    given = {"DAGSTER_PG_HOST": "127.0.0.1", "DAGSTER_PG_USER": "dagster", "RLHF_BUCKET": "logs"}
    for name, value in (given | {"DAGSTER_PG_PASSWORD": PASSWORDS["DAGSTER_PG"], "AWS_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


def test_each_role_has_its_password_and_its_database(databases: PostgresServer) -> None:
    with psycopg.connect(databases.address().split("?")[0]) as connection:
        rows = connection.execute(
            "SELECT rolname, rolpassword LIKE 'SCRAM%', datname, rolsuper FROM pg_authid JOIN pg_database ON datdba = "
            "pg_authid.oid WHERE datname NOT LIKE 'template%' AND datname <> 'postgres' ORDER BY rolname"
        ).fetchall()
    assert rows == [(name, True, name, False) for name in ("dagster", "label_studio", "ledger")]


def test_runs_are_kept_in_postgres(instance: dg.DagsterInstance) -> None:
    """Dagster tells of each event by NOTIFY, which fails with the driver that SQLAlchemy would take by itself."""

    @dg.job
    def nothing() -> None:
        pass

    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, "so that an event is written")
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert type(instance.run_storage).__name__ == "PostgresRunStorage"
    assert instance.run_storage.postgres_url.startswith("postgresql+psycopg2://")
    assert isinstance(instance.run_launcher, ProcessRunLauncher)
    assert instance.run_monitoring_enabled
    assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"


def test_what_a_run_s_command_line_holds_has_no_password(home: Path) -> None:
    """The instance is part of it, and everybody on a host may list its processes."""
    ref = InstanceRef.from_dir(str(home))
    assert PASSWORDS["DAGSTER_PG"] not in json.dumps(ref.to_dict())
    assert "DAGSTER_PG_PASSWORD" in json.dumps(ref.to_dict())


def test_a_key_that_the_instance_does_not_know_is_refused(home: Path) -> None:
    path = home / "dagster.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("skip_empty_files", "skip_empty"), encoding="utf-8")
    with pytest.raises(dg.DagsterInvalidConfigError, match="skip_empty"):
        dg.DagsterInstance.from_config(str(home)).compute_log_manager  # noqa: B018


def test_the_local_instance_is_the_one_of_new_loops() -> None:
    template = DEPLOY.parent / "rlhf_dagster" / "templates" / "dagster.yaml"
    assert (DEPLOY / "dagster.yaml").read_text(encoding="utf-8") == template.read_text(encoding="utf-8")


def test_a_database_that_is_away_and_a_variable_that_is_not_set_are_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "dagster.yaml"
    path.write_text(re.sub(r"port: \d+", f"port: {free_port()}", path.read_text(encoding="utf-8")), encoding="utf-8")
    away = r"does not answer \(.*refused.*\); start it, or mend its address"
    with pytest.raises(UserError, match=away) as caught, readable_records(home):
        dg.DagsterInstance.from_config(str(home))
    assert PASSWORDS["DAGSTER_PG"] not in str(caught.value)
    monkeypatch.delenv("DAGSTER_PG_USER")
    with pytest.raises(UserError, match=r"dagster.yaml cannot be followed: .*DAGSTER_PG_USER"), readable_records(home):
        dg.DagsterInstance.from_config(str(home))
