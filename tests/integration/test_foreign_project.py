"""A loop in a team's project, with Postgres and a process for each step, is the loop that `rlhf` makes."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from integration.dagster_api import DagsterApi
from loops import ROUND, checkpoint, small
from postgres import USER, PostgresServer
from team_at_work import TeamAtWork
from team_project import OWN, write_project

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.cli.which_loop import find_declared
from rlhf_dagster.loop.summary import champion, round_rows

pytestmark = [pytest.mark.integration, pytest.mark.long]
DATABASE = "of_a_team"
EXECUTOR = """dg.multiprocess_executor.configured(
            {"start_method": {"forkserver": {"preload_modules": ["torch", "transformers"]}}}
        )"""
"""A process for each step, which does not import for itself what takes longest."""


@pytest.fixture
def team(postgres: PostgresServer, base_model_cache: Path, tmp_path: Path) -> Iterator[TeamAtWork]:
    """A loop that nothing is made of yet, beside the team's own assets; runs and labels are in Postgres."""
    ledger = postgres.address()
    server = urlsplit(ledger)
    with psycopg.connect(f"postgresql://{server.netloc}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE}")
    loop = small(ledger=ledger) | {"key_prefix": "nlp/support", "root": str(tmp_path / "files")}
    own = OWN.replace("dg.multiprocess_executor", EXECUTOR)
    project = write_project(tmp_path / "foreign_team", "foreign_team", {"support": loop}, own)
    made = TeamAtWork(project, tmp_path / "home")
    # SQLAlchemy would take psycopg 3 for `postgresql://`, which dagster-postgres does not know.
    where = {"hostname": server.hostname, "port": server.port, "username": USER, "password": "", "db_name": DATABASE}
    made.configure(storage={"postgres": {"postgres_db": {"scheme": "postgresql+psycopg2", **where}}})
    yield made
    made.stop()


def test_a_round_is_the_same_in_a_team_s_project(team: TeamAtWork, finished: LoopRunner) -> None:
    team.start_daemon()
    team.start_web()
    api = DagsterApi(team.address, team.module)
    for job, key in (("prepare", ""), ("open_round", ""), ("collect_round", ROUND), ("train_round", ROUND)):
        assert api.wait(api.launch(f"nlp__support__{job}", key)) == "SUCCESS", team.log()[-5000:]
    loop, same = find_declared("nlp/support", team.project), finished.loop
    assert round_rows(loop, [ROUND]) == round_rows(same, [ROUND])
    assert champion(loop) == champion(same)
    for asset, key in (("base_model", ""), ("sft_checkpoint", ""), ("reward_model", ROUND), ("ppo_policy", ROUND)):
        assert checkpoint(loop, asset, key).digest == checkpoint(same, asset, key).digest
    assert not list(team.home.rglob("*.db"))
    assert not list((team.project.parent / "files").rglob("*.sqlite"))
