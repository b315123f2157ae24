"""A guard between a run and its training: nothing that the training starts outlives the run.

``python -m rlhf_dagster.compute.guard --grace SECONDS [--stop-file FILE] -- COMMAND`` runs the command and exits with
its code. The guard ends the command when it is told to (SIGTERM, SIGINT), and when the other end of its standard input
closes, which also happens when the process that started the guard is killed. It first asks the command to end: by
writing ``--stop-file``, which a training looks at after each step, or without that option by SIGTERM. Processes that
are left after the grace are killed. So are those that left the process group, as the ranks of ``torchrun`` do: on Linux
orphans become the guard's children. This module imports no more than psutil, so that the guard starts fast.
"""

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from rlhf_dagster.common.processes import descendants

LAST_WORDS = 2.0
"""Seconds between SIGTERM and SIGKILL for those that did not end when asked."""
_POLL = 0.1
_SET_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--stop-file", type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    asked = _Asked()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, asked)
    _prctl(_SET_SUBREAPER, 1)
    child = subprocess.Popen(options.command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)  # noqa: S603, PLW1509
    code = _watch(child, asked)
    if code is None:
        code = _end(child, options.grace, options.stop_file)
    _kill_rest()
    sys.exit(code if code >= 0 else 128 - code)


class _Asked:
    """Set by the signals that ask the guard to end."""

    def __init__(self) -> None:
        self.to_end = False

    def __call__(self, *_: object) -> None:
        self.to_end = True


def _watch(child: subprocess.Popen[bytes], asked: _Asked) -> int | None:
    """Wait for the child; returns its code, or None when it is to be ended."""
    while not asked.to_end:
        code = child.poll()
        if code is not None:
            return code
        readable, _, _ = select.select([sys.stdin], [], [], _POLL)
        if readable and not os.read(sys.stdin.fileno(), 1):
            return None
    return None


def _end(child: subprocess.Popen[bytes], grace: float, stop_file: Path | None) -> int:
    """Ask the child to end and wait for the grace; returns its code, that of SIGKILL where it is still there."""
    if stop_file is not None:
        _ask(stop_file)
    else:
        _signal(signal.SIGTERM)
    _wait_for(child, grace)
    return child.returncode if child.returncode is not None else 128 + signal.SIGKILL


def _ask(stop_file: Path) -> None:
    """Write the file that ends the command. On a full disk it may stay empty, which asks as well, or be missing."""
    try:
        stop_file.write_text("the run was cancelled", encoding="utf-8")
    except OSError:
        if not stop_file.exists():
            _signal(signal.SIGTERM)


def _wait_for(child: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        time.sleep(_POLL)


def _kill_rest() -> None:
    """End every process that the command has left behind, those in other sessions too."""
    if not descendants(os.getpid()):
        return
    _signal(signal.SIGTERM)
    end = time.monotonic() + LAST_WORDS
    while _reap() and time.monotonic() < end:
        time.sleep(_POLL)
    while _reap():
        _signal(signal.SIGKILL)
        time.sleep(_POLL)


def _signal(name: int) -> None:
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, name)
        except (ProcessLookupError, PermissionError):
            continue


def _reap() -> list[int]:
    """Collect what has ended; returns what is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
    return descendants(os.getpid())


def _die_with_parent() -> None:
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main()
