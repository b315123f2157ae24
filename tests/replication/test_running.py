"""Variants run in worker processes: from another's beginning, killed and taken up again, with the same numbers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from smoke import Smoke

from rlhf_dagster.replication.base import Claim
from rlhf_dagster.replication.running.plan import Plan, Work, make_plan
from rlhf_dagster.replication.running.replicate import run_plan
from rlhf_dagster.replication.running.requests import Said

Heard = list[tuple[str, Said]]


def plan_of(out: Path, *claims: Claim, seeds: Sequence[int] = (0,)) -> Plan:
    return make_plan(claims, "quick", seeds, out, claims)


def run(plan: Plan, jobs: int = 1) -> tuple[Heard, dict[str, str]]:
    heard: Heard = []

    def listen(work: Work, said: Said) -> None:
        heard.append((work.loop.variant.name, said))

    failures = run_plan(plan, jobs, lambda _: 1.0, listen)
    return heard, failures


def made(heard: Heard) -> Counter[tuple[str, str]]:
    return Counter((name, said.what) for name, said in heard if said.kind == "made")


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> tuple[Plan, Heard]:
    """Both loops, of which the second begins as the first."""
    plan = plan_of(tmp_path_factory.mktemp("forked"), Smoke())
    heard, failures = run(plan)
    assert failures == {}
    return plan, heard


def test_what_is_taken_over_is_made_once(forked: tuple[Plan, Heard]) -> None:
    plan, heard = forked
    assert made(heard)["plain", "reward_model"] == 1
    assert {asset for name, asset in made(heard) if name == "free"} == {
        "reward_model_halves",
        "ppo_policy",
        "evaluation_completions",
        "eval_report",
    }
    assert plan.unfinished() == []
    assert run(plan) == ([], {})
