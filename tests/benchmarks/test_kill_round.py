"""The benchmark of faults in a round, in small."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import kill_round
from benchmarks.faults import shim
from benchmarks.kill_round import Outcome, Point, Stage, differences, points_of, report, site_of, try_all

FAULTS = ["kill", "eio", "full"]
STAGES = [
    Stage("reward_model", Path("one"), ["o a", "w a", "w a", "s a"]),
    Stage("promotion", Path("two"), ["o b", "w a"]),
]


def test_every_kind_of_call_is_tried_with_every_fault_before_any_is_drawn_at_random() -> None:
    points = list(itertools.islice(points_of(STAGES, FAULTS, seed=0), 100))
    first = [(point.stage.sites[point.call], point.fault) for point in points[:12]]
    assert sorted({site for site, _ in first[:4]}) == ["o a", "o b", "s a", "w a"]
    assert len({fault for _, fault in first[:4]}) == 3
    assert sorted(first) == sorted(itertools.product(["o a", "o b", "s a", "w a"], FAULTS))
    assert {(point.stage.name, point.call) for point in points[12:]} == {
        *(("reward_model", call) for call in range(4)),
        *(("promotion", call) for call in range(2)),
    }
    assert points == list(itertools.islice(points_of(STAGES, FAULTS, seed=0), 100))
    assert points != list(itertools.islice(points_of(STAGES, FAULTS, seed=1), 100))


def test_calls_of_one_kind_differ_in_numbers_alone(tmp_path: Path) -> None:
    assert site_of(f"w {tmp_path}/models/ppo-round-0001-79f1b11f17/config.json", tmp_path) == (
        "w models/ppo-round-#-#/config.json"
    )
    assert site_of(f"L {tmp_path}", tmp_path) == "L "


def test_what_differs_is_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert differences("a: 1\nb: 2", "a: 1\nb: 2") == ""
    assert differences("a: 1\nb: 2", "a: 1\nb: 3") == "b: 2 and not b: 3"
    points = [Point(STAGES[0], 0, "kill"), Point(STAGES[1], 1, "eio")]
    assert report(Outcome(point, "w a", "") for point in points) == 0

    def try_one(point: Point) -> Outcome:
        return Outcome(point, point.stage.sites[point.call], "no sentence" if point.fault == "eio" else "")

    assert report(try_all(points, try_one, jobs=1)) == 1
    said = capsys.readouterr().out
    assert "promotion, eio at call 1 (w a): no sentence" in said
    assert "2 tried at 2 kinds of calls, 1 failed" in said


@pytest.mark.long
@pytest.mark.skipif(not shim.can_build(), reason="needs Linux and a C compiler")
def test_a_round_goes_on_after_a_fault_at_any_call() -> None:
    command = [sys.executable, "-m", kill_round.__name__, "--points", "9"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 tried at 9 kinds of calls, 0 failed" in done.stdout
