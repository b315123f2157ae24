"""Anybody can stop the loop, in any of three ways, and it is on record who did and why."""

import json
import os
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("what", ["a folder", "a link to nothing", "a link to itself", "a link to a folder", "a pipe"])
def test_whatever_has_the_name_of_the_cord_stops_and_is_taken_away(tmp_path: Path, what: str) -> None:
    cord, store = tmp_path / "STOP", LocalStore(tmp_path)
    (tmp_path / "logs").mkdir()
    {
        "a folder": cord.mkdir,
        "a link to nothing": lambda: cord.symlink_to("gone"),
        "a link to itself": lambda: cord.symlink_to("STOP"),
        "a link to a folder": lambda: cord.symlink_to("logs"),
        "a pipe": lambda: os.mkfifo(cord),
    }[what]()
    first = read_stop(store)
    assert first is not None
    assert (first.by.removeprefix("the ").split()[1], first.reason) == ("STOP", "no reason was given")
    assert pull(store, "Ada", "one").by == first.by
    assert reset(store, "Ben") is not None
    assert read_stop(store) is None
    assert not os.path.lexists(cord)
    assert (tmp_path / "logs").is_dir()
