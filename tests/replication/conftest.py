"""Replications of tiny loops, run once a session."""

import signal
from pathlib import Path

import pytest
from forks import forked
from smoke_claim import ALONE, FREE, PLAIN, SMALLER, Heard, Smoke, plan_of, run, run_until_killed

from rlhf_dagster.replication.running.plan import Plan


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> tuple[Plan, Heard]:
    """Three loops, of which two begin as the first."""
    plan = plan_of(tmp_path_factory.mktemp("begun"), Smoke(PLAIN, FREE, SMALLER))
    heard, failures = run(plan)
    assert failures == {}
    return plan, heard


@pytest.fixture(scope="session")
def killed(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> tuple[Plan, Heard]:
    """The second loop made alone, by a call that was killed when the policy began, and by the same call again."""
    plan = plan_of(tmp_path_factory.mktemp("killed"), Smoke(ALONE))
    process = forked(run_until_killed, plan.out, "ppo_policy")
    process.join()
    assert process.exitcode == -signal.SIGKILL
    heard, failures = run(plan)
    assert failures == {}
    return plan, heard
