import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from rlhf_dagster.common import processes
from rlhf_dagster.common.processes import (
    SLACK,
    begun_at,
    descendants,
    is_alive,
    is_gone,
    other_host,
    process_tag,
    processes_with,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()", "a-word", "another"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_is_alive_until_it_ends(other: subprocess.Popen[bytes]) -> None:
    tag = process_tag(other.pid)
    assert is_alive(tag)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(other.pid).status() == psutil.STATUS_ZOMBIE
    assert not is_alive(tag)
    assert other.pid not in descendants(os.getpid())
    other.wait()
    assert not is_alive(tag)
    assert process_tag(other.pid).startswith(f"{other.pid}:@{socket.gethostname()}")
    assert not is_alive(process_tag(other.pid))


def test_a_pid_that_another_process_has_now_is_dead(other: subprocess.Popen[bytes]) -> None:
    pid, started = process_tag(other.pid).partition("@")[0].split(":")
    assert not is_alive(f"{pid}:{int(started) - SLACK - 1}")
    assert not is_alive(f"{pid}:")


@linux
def test_tags_are_those_that_version_0_1_read_from_proc(other: subprocess.Popen[bytes]) -> None:
    for pid in (other.pid, os.getpid(), os.getppid()):
        started = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        assert process_tag(pid).partition("@")[0] == f"{pid}:{started}"


def test_a_tag_of_version_0_1_without_a_time_says_that_there_is_a_process(other: subprocess.Popen[bytes]) -> None:
    assert is_alive(f"{other.pid}:unknown")
    other.kill()
    other.wait()
    assert not is_alive(f"{other.pid}:unknown")


def test_a_process_of_another_host_is_not_looked_for_here(other: subprocess.Popen[bytes]) -> None:
    tag = process_tag(other.pid)
    elsewhere = tag.replace("@", "@not-")
    assert (other_host(tag), other_host(elsewhere)) == ("", f"not-{socket.gethostname()}")
    assert (is_alive(tag), is_gone(tag)) == (True, False)
    assert (is_alive(elsewhere), is_gone(elsewhere)) == (False, False)
    of_old = tag.partition("@")[0]
    assert (other_host(of_old), is_alive(of_old), is_gone(of_old)) == ("", True, False)
    other.kill()
    other.wait()
    assert [is_gone(one) for one in (tag, of_old, elsewhere)] == [True, True, False]


SPACE = "0123abcd.4567cdef.4026531836"
"""Machine, boot and PID namespace."""


@pytest.mark.parametrize(
    ("host", "space", "elsewhere", "gone"),
    [
        ("gpu-7", SPACE, "", False),
        ("gpu-7", "", "", False),  # a tag of an earlier release
        ("gpu-7", SPACE.replace("836", "999"), "gpu-7, in another container", False),
        ("gpu-7", SPACE.replace("cdef", "0000"), "", True),  # the machine was started again
        ("gpu-7", SPACE.replace("abcd", "0000"), "another machine that is called gpu-7", False),
        ("gpu-8", SPACE, "gpu-8", False),
        ("gpu-8", SPACE.replace("cdef", "0000"), "gpu-8", False),
        ("3f4e5d6c7b8a", SPACE.replace("836", "999"), "", True),  # the container was started again
        ("3f4e5d6c7b8a", SPACE.replace("abcd", "0000"), "", True),
    ],
)
def test_machines_boots_and_containers_are_told_apart(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, host: str, space: str, elsewhere: str, gone: bool
) -> None:
    ours = host if host != "gpu-8" else "gpu-7"
    monkeypatch.setattr(processes, "own_host", lambda: ours)
    monkeypatch.setattr(processes, "process_space", lambda: SPACE)
    tag = process_tag(other.pid).partition("@")[0] + f"@{host}" + (f"+{space}" if space else "")
    assert (other_host(tag), is_gone(tag), is_alive(tag)) == (elsewhere, gone, not (elsewhere or gone))


@linux
def test_a_process_of_another_pid_namespace_is_not_said_to_be_gone(other: subprocess.Popen[bytes]) -> None:
    tag = process_tag(other.pid)
    assert "+" in tag
    look = (
        f"from rlhf_dagster.common.processes import *; print(is_alive({tag!r}), is_gone({tag!r}), other_host({tag!r}))"
    )
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", look]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip("this system gives nobody a namespace of their own")
    assert done.stdout.split(maxsplit=2) == ["False", "False", f"{socket.gethostname()}, in another container\n"]
    assert is_alive(tag)


def test_a_clock_that_is_set_changes_no_tag(other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    tag, created, booted = process_tag(other.pid), psutil.Process.create_time, psutil.boot_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 3600)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted + 3600)
    assert is_alive(tag)


def test_processes_are_found_by_words_of_their_command(other: subprocess.Popen[bytes]) -> None:
    while not psutil.Process(other.pid).cmdline():
        pass  # the system fills it in a moment after the process has begun
    assert other.pid in processes_with("a-word", "another")
    assert other.pid not in processes_with("a-word", "a third")


def test_nothing_is_below_a_process_that_is_gone(other: subprocess.Popen[bytes]) -> None:
    other.kill()
    other.wait()
    assert descendants(other.pid) == []


def test_when_this_process_was_begun() -> None:
    began = datetime.fromtimestamp(psutil.Process().create_time(), UTC)
    assert abs(begun_at() - began) < timedelta(seconds=2)  # psutil counts from the boot, in whole seconds
    assert begun_at() < datetime.now(UTC)
