"""The benchmarks of faults, in small: they find nothing, and they find what is there to be found."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faults import shim
from benchmarks.faults.disk import Disk
from benchmarks.faults.shim import Call
from benchmarks.kill_calls import wrong_state

pytestmark = pytest.mark.skipif(not shim.can_build(), reason="needs Linux and a C compiler")
LIGHT = "promotion,pin,stop,resume,import"
"""Cases without torch and Dagster, which take longer to import than all the rest."""

WITHOUT = ("--leave-out", "state,table")


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_fault_at_any_call_leaves_the_folder_whole_and_the_command_goes_on() -> None:
    done = run("benchmarks.kill_calls", "--cases", LIGHT, "--every", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    tried, failed = (int(word) for word in done.stdout.split("\n")[-2].split() if word.isdigit())
    assert tried >= 60
    assert failed == 0


def test_files_that_are_overwritten_in_place_are_found() -> None:
    done = run("benchmarks.kill_calls", "--cases", "import", "--faults", "tear", "--in-place")
    assert done.returncode == 1
    assert "the folder is not whole after this" in done.stdout


def test_what_was_confirmed_survives_a_power_loss() -> None:
    done = run("benchmarks.power_loss", "--points", "40", *WITHOUT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 power losses, 0 with something lost or half there" in done.stdout


def test_what_was_not_synced_is_found_to_be_lost() -> None:
    done = run("benchmarks.power_loss", "--points", "20", *WITHOUT, "--without-sync")
    assert done.returncode == 1
    assert "where there should be" in done.stdout


def test_states_between_before_and_after_are_told() -> None:
    assert not wrong_state("pin", "kill", "killed", "none")
    assert not wrong_state("pin", "kill", "killed", "sft")
    assert "neither" in wrong_state("pin", "kill", "killed", "ppo")
    assert "says that it is done" in wrong_state("pin", "eio", "done", "none")
    assert "keeps the loop from being stopped" in wrong_state("stop", "full", "raised", "free")
    assert "has changed" in wrong_state("resume", "full", "raised", "free")


def found(calls: list[Call], tmp_path: Path, seed: int) -> dict[str, bytes]:
    disk, into = Disk(Path("/loop")), tmp_path / str(seed)
    for call in calls:
        disk.tell(call)
    disk.crash(into, random.Random(seed))
    return {path.relative_to(into).as_posix(): path.read_bytes() for path in into.rglob("*") if path.is_file()}


def call(kind: str, path: str, other: str = "", data: bytes = b"") -> Call:
    return Call(kind, path, other, 0, data)


WRITTEN = [call("c", "/loop/.a"), call("w", "/loop/.a", data=b"content")]
SYNCED = [*WRITTEN, call("s", "/loop/.a"), call("r", "/loop/.a", "/loop/a")]


def test_a_file_and_its_name_that_are_synced_are_always_there(tmp_path: Path) -> None:
    for seed in range(50):
        assert found([*SYNCED, call("s", "/loop")], tmp_path, seed) == {"a": b"content"}


def test_a_name_that_is_not_synced_may_be_there_or_not(tmp_path: Path) -> None:
    states = Counter(str(found(SYNCED, tmp_path, seed)) for seed in range(50))
    assert set(states) == {"{}", "{'.a': b'content'}", "{'a': b'content'}"}


def test_content_that_is_not_synced_may_be_cut_off_or_zeros(tmp_path: Path) -> None:
    calls = [*WRITTEN, call("r", "/loop/.a", "/loop/a"), call("s", "/loop")]
    states = {found(calls, tmp_path, seed)["a"] for seed in range(80)}
    assert {b"", b"content", bytes(7)} <= states
    assert any(state and b"content".startswith(state) and state != b"content" for state in states)


def test_folders_and_removals_are_names_too(tmp_path: Path) -> None:
    calls = [call("m", "/loop/x"), call("s", "/loop"), call("c", "/loop/x/f"), call("s", "/loop/x/f")]
    assert {str(found(calls, tmp_path, seed)) for seed in range(30)} == {"{}", "{'x/f': b''}"}
    removed = [*calls, call("s", "/loop/x"), call("u", "/loop/x/f")]
    assert {str(found(removed, tmp_path, seed)) for seed in range(100, 130)} == {"{}", "{'x/f': b''}"}
    assert found([*removed, call("s", "/loop/x")], tmp_path, 500) == {}
