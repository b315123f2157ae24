"""What strikes a loop, and what ends it after a while."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.autonomous_loop import processes
from benchmarks.soak.living import Living, Record, Story, of_loop, rlhf

KINDS = ("daemon", "code server", "label server", "training", "run", "ui", "hang", "cord")
SPARING = ("training", "run", "hang", "cord")
"""What strikes the first loop, whose services live on, so that one sees whether they grow."""
SMALL_DISK = 16 * 2**30


class Faults:
    """Strikes a loop at a time, in random order."""

    def __init__(self, loops: list[Living], record: Record, story: Story) -> None:
        self.loops, self.record, self.story = loops, record, story
        self.rng = random.Random(f"{record.seed} {record.begun}")
        self._later: list[tuple[float, Callable[[], object]]] = []
        self.kinds = [*KINDS]
        if shutil.disk_usage(loops[0].root).total < SMALL_DISK:
            self.kinds.append("full disk")

    @property
    def under_way(self) -> bool:
        """Whether one is there that is yet to end."""
        return bool(self._later)

    def strike(self) -> None:
        living = self.rng.choice(self.loops)
        kind = self.rng.choice(SPARING if living is self.loops[0] else self.kinds)
        if self._strike(living, kind):
            self.record.faults[kind] = self.record.faults.get(kind, 0) + 1
            self.story(f"{living.root.name}: {kind}")

    def end_due(self, everything: bool = False) -> None:
        now = time.monotonic()
        due = [end for at, end in self._later if everything or at <= now]
        self._later = [(at, end) for at, end in self._later if not (everything or at <= now)]
        for end in due:
            end()

    def _strike(self, living: Living, kind: str) -> bool:
        if kind == "ui":
            return _kill(living.running["ui"].pid)
        if kind == "cord":
            rlhf("stop", "a soak", "--loop", living.root)
            self._then(45, lambda: rlhf("resume", "--loop", living.root))
            return True
        if kind == "full disk":
            ballast = living.root.parent / "ballast"
            _fill(ballast)
            self._then(20, lambda: ballast.unlink(missing_ok=True))
            return True
        if kind == "hang":
            pids = processes(living.root, "label server")
            self._then(40, lambda: [_signal(pid, signal.SIGCONT) for pid in pids])
            return sum(_signal(pid, signal.SIGSTOP) for pid in pids) > 0
        pids = _runs_of(living.root) if kind == "run" else processes(living.root, kind)
        return bool(pids) and _kill(self.rng.choice(pids))

    def _then(self, seconds: float, end: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, end))


def _kill(pid: int) -> bool:
    return _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _runs_of(root: Path) -> list[int]:
    return [process.pid for process in of_loop(root) if "execute_run" in " ".join(process.cmdline())]


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(2**20))
            file.flush()
