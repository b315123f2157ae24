"""A guarded command ends with everything that it started, however stubborn, and however its own starter ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_dagster.common.processes import descendants
from rlhf_dagster.compute.launchers.child_process import guarded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Orphans become the guard's children on Linux alone.")

BEGIN = "import os, signal, subprocess, sys, time; from pathlib import Path; folder = Path(sys.argv[1])\n"
NOTE = "(folder / f'{os.getpid()}.pid').touch()\n"
WAIT = "time.sleep(600)\n"
COMMANDS = {
    "plain": BEGIN + NOTE + WAIT,
    "with a grandchild": BEGIN
    + NOTE
    + "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', str(folder)])\n"
    + WAIT,
    "with a grandchild in another session": BEGIN
    + NOTE
    + "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', str(folder)], start_new_session=True)\n"
    + WAIT,
    "ignores signals": BEGIN
    + "[signal.signal(name, signal.SIG_IGN) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]\n"
    + NOTE
    + WAIT,
    "leaves an orphan": BEGIN
    + "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', str(folder)], start_new_session=True)\n"
    + NOTE,
}


def of(folder: Path) -> list[int]:
    """Pids of living processes with ``folder`` in their command line, the guard included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.05)


def started(folder: Path) -> bool:
    return any(folder.glob("*.pid"))


@pytest.mark.parametrize("kind", COMMANDS)
def test_leaving_the_block_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        with guarded([sys.executable, "-c", COMMANDS[kind], str(tmp_path)], 0.5, log) as guard:
            wait_until(lambda: started(tmp_path))
            if kind == "leaves an orphan":
                wait_until(lambda: guard.poll() is not None)
            else:
                assert len(of(tmp_path)) >= 2
        assert of(tmp_path) == []
    assert guard.returncode == {"leaves an orphan": 0, "ignores signals": 128 + signal.SIGKILL}.get(
        kind, 128 + signal.SIGTERM
    )


@pytest.mark.parametrize("kind", list(COMMANDS)[:-1])
def test_nothing_outlives_a_starter_that_is_killed(kind: str, tmp_path: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from rlhf_dagster.compute.launchers.child_process import guarded\n"
        f"with open({str(tmp_path / 'log')!r}, 'wb') as log:\n"
        f"    with guarded([sys.executable, '-c', {COMMANDS[kind]!r}, {str(tmp_path)!r}], 0.5, log) as guard:\n"
        "        guard.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", starter]) as process:
        wait_until(lambda: started(tmp_path))
        process.kill()
    wait_until(lambda: of(tmp_path) == [])


def test_nothing_outlives_a_guard_that_is_killed(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        with guarded([sys.executable, "-c", COMMANDS["ignores signals"], str(tmp_path)], 0.5, log) as guard:
            wait_until(lambda: started(tmp_path))
            guard.kill()
        wait_until(lambda: of(tmp_path) == [])


def test_a_guard_that_hangs_is_killed_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_dagster.compute.launchers.child_process.HURRY", 0.5)
    with (tmp_path / "log").open("wb") as log:
        with guarded([sys.executable, "-c", COMMANDS["plain"], str(tmp_path)], 0.1, log) as guard:
            wait_until(lambda: started(tmp_path))
            os.kill(guard.pid, signal.SIGSTOP)
        wait_until(lambda: of(tmp_path) == [])


def test_the_commands_own_code_comes_back(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log, guarded([sys.executable, "-c", "raise SystemExit(7)"], 5, log) as guard:
        assert guard.wait() == 7


def test_a_stop_file_is_written_first_so_that_a_training_can_keep_its_state(tmp_path: Path) -> None:
    polite = (
        BEGIN
        + "signal.signal(signal.SIGTERM, lambda *_: (folder / 'signalled').touch())\n"
        + NOTE
        + "while not (folder / 'cancelled').exists(): time.sleep(0.05)\n"
        + "(folder / 'kept').write_text((folder / 'cancelled').read_text())\n"
    )
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-c", polite, str(tmp_path)]
        with guarded(command, 60, log, stop_file=tmp_path / "cancelled") as guard:
            wait_until(lambda: started(tmp_path))
    assert guard.returncode == 0
    assert (tmp_path / "kept").read_text() == "the run was cancelled"
    assert not (tmp_path / "signalled").exists()


def test_descendants_are_children_and_their_children() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        assert child.pid in descendants(os.getpid())
        child.kill()
    assert child.pid not in descendants(os.getpid())
