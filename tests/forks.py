"""Processes of their own that need no seconds for imports: forked from one that has done nothing else."""

import atexit
import faulthandler
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "rlhf_dagster.cli",
        "rlhf_dagster.cli.app",
        "rlhf_dagster.cli.runner",
        "rlhf_dagster.compute.trainings",
        "rlhf_dagster.training.sft.train",
        "rlhf_dagster.training.reward.train",
        "rlhf_dagster.training.ppo.train",
        "rlhf_dagster.training.dpo.train",
        "rlhf_dagster.training.pretraining.tiny_model",
    ]
)


def forked(function: Callable[..., object], *arguments: Any, output: Path | None = None) -> ForkServerProcess:
    """A started process that calls a function of a module, with this one's environment as it is now.

    What it writes goes to ``NAME.out`` and ``NAME.err`` for an ``output`` of that name, and else to this one's.
    """
    process = _FORKS.Process(target=_run, args=(function, arguments, dict(os.environ), output, Path(_crashes().name)))
    process.start()
    return process


def _run(
    function: Callable[..., object],
    arguments: Sequence[Any],
    environment: Mapping[str, str],
    output: Path | None,
    crashes: Path,
) -> None:
    gc.freeze()
    os.environ.clear()
    os.environ.update(environment)
    if output is not None:
        _redirect(sys.stdout, output.with_suffix(".out"))
        _redirect(sys.stderr, output.with_suffix(".err"))
    with (crashes / str(os.getpid())).open("w") as stacks:
        faulthandler.enable(stacks)
        try:
            function(*arguments)
        finally:
            atexit._run_exitfuncs()  # which `multiprocessing` leaves out
            faulthandler.disable()


@cache
def _crashes() -> TemporaryDirectory[str]:
    """Where the stacks of processes are that a signal such as SIGSEGV has ended, by their pids."""
    return TemporaryDirectory(prefix="rlhf-crashes-")


def _redirect(stream: Any, path: Path) -> None:
    """The descriptor too, for what is written past Python and by children."""
    with path.open("wb") as file:
        os.dup2(file.fileno(), stream.fileno())


def join_all(processes: Sequence[ForkServerProcess]) -> None:
    """Wait for all; where one fails, the others are killed, since they may wait for it."""
    running = {process.sentinel: process for process in processes}
    while running:
        for sentinel in wait(list(running)):
            process = running.pop(sentinel)
            process.join()
            if process.exitcode:
                for other in running.values():
                    other.kill()
                raise AssertionError(f"{process.name} ended with {process.exitcode}\n{_stacks(process)}")


def _stacks(process: ForkServerProcess) -> str:
    crash = Path(_crashes().name, str(process.pid))
    return crash.read_text() if crash.exists() else ""
