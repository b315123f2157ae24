"""Sensors in simulated time: nothing is launched twice, nothing again and again, and nothing waits without a reason."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from loops import write_loop
from simulated_year import World, live

from rlhf_dagster.automation.decide import Wait
from rlhf_dagster.config.loop import load_config

AUTOMATION = {
    "min_new_labels": 15,
    "quiet_minutes": 90,
    "longest_wait_hours": 24,
    "max_unlabelled": 5,
    "max_rounds_in_progress": 2,
    # At an hour that the clocks skip in spring and repeat in autumn.
    "open_round_cron": "30 2 * * *",
    "timezone": "Europe/Berlin",
}
MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    config = load_config(
        write_loop(tmp_path / "loop", automation=AUTOMATION, label_store={"simulated_annotators": False})
    )
    return lambda seed, **how: World(tmp_path / "loop", config, seed, **how)


def assert_sound(world: World, days: int) -> None:
    assert world.wrong == []
    decided = [one for one in world.rounds.values() if world._is_over(one)]
    assert len(decided) >= days / 12, (len(decided), world.said)
    assert world.scheduled <= days + 45  # a clock that was 40 days ahead has had its mornings early
    trainings = world.launches["train_round"]
    assert trainings <= 4 * len(world.rounds) + 40 * days / 365, "a storm"


def test_four_quiet_days(make_world: MakeWorld) -> None:
    world = make_world(0, troubles=0)
    for _ in live(world, 4):
        pass
    assert_sound(world, 4)


@pytest.mark.parametrize("seed", range(2))
def test_days_of_trouble(make_world: MakeWorld, seed: int) -> None:
    world = make_world(seed, troubles=0.03)
    for _ in live(world, 4):
        pass
    assert world.wrong == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_year(make_world: MakeWorld, seed: int) -> None:
    world = make_world(seed)
    for _ in live(world, 365):
        pass
    assert_sound(world, 365)


def test_a_second_launch_would_be_noticed(make_world: MakeWorld) -> None:
    world = make_world(0)
    key = world._open()
    for run_key in ("a", "a", "a", "a", "a", "b"):
        world._request("new_labels", "train_round", dg.RunRequest(run_key=run_key, partition_key=key))
    world._check()
    assert "beside" in world.wrong[0]
    assert "asked for again and again" in world.wrong[1]


def test_a_round_that_is_never_trained_would_be_noticed(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_dagster.automation.decide.train_decision", lambda *_: Wait("no"))
    world = make_world(0, troubles=0)
    for _ in live(world, 5):
        pass
    assert "starves" in world.wrong[0]
