"""Anybody can stop the loop, in any of three ways, and it is on record who did and why."""

import json
from pathlib import Path

from rlhf_dagster.lineage.stop_cord import pull, read_stop, reset, resumes
from rlhf_dagster.storage.local import LocalStore


def test_a_loop_goes_on_until_somebody_stops_it(tmp_path: Path) -> None:
    assert read_stop(LocalStore(tmp_path)) is None
    stop = pull(LocalStore(tmp_path), "Ada", "the labels of Tuesday are wrong")
    assert read_stop(LocalStore(tmp_path)) == stop
    assert stop.sentence == "Stopped by Ada: the labels of Tuesday are wrong. `rlhf resume` lets the loop go on."


def test_the_first_stop_holds(tmp_path: Path) -> None:
    first = pull(LocalStore(tmp_path), "Ada", "one")
    assert pull(LocalStore(tmp_path), "Ben", "two") == first


def test_a_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "STOP").write_text("the reward\nlooks odd\n")
    stop = read_stop(LocalStore(tmp_path))
    assert stop is not None
    assert (stop.by, stop.reason) == ("the file STOP", "the reward looks odd")


def test_an_empty_file_and_a_strange_one_stop_too(tmp_path: Path) -> None:
    for content in (b"", b"\xff\xfe", b"[1, 2]", b'{"by": "x"}', b"[" * 100_000):
        (tmp_path / "STOP").write_bytes(content)
        assert read_stop(LocalStore(tmp_path)) is not None


def test_a_release_is_on_record_and_counted(tmp_path: Path) -> None:
    assert reset(LocalStore(tmp_path), "Ada") is None
    assert resumes(LocalStore(tmp_path)) == 0
    pull(LocalStore(tmp_path), "Ada", "one")
    released = reset(LocalStore(tmp_path), "Ben")
    assert released is not None
    assert released.by == "Ada"
    assert read_stop(LocalStore(tmp_path)) is None
    assert resumes(LocalStore(tmp_path)) == 1
    lines = [json.loads(file.read_text()) for file in sorted((tmp_path / "stops").iterdir())]
    assert [(line["action"], line["by"]) for line in lines] == [("stop", "Ada"), ("resume", "Ben")]
