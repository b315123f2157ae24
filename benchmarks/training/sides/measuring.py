"""The clock of a measured process, its memory, and the request and result files. Imports nothing heavy."""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = Callable[[Path, dict[str, Any], "Laps"], dict[str, Any] | None]
"""Runs a case on a folder of inputs with the case's options, marks laps, and may return further numbers."""


class Laps:
    """Wall and CPU time between marks; the first ``warm_up`` intervals are dropped."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.marks.append((time.perf_counter(), time.process_time()))

    def intervals(self) -> dict[str, list[float]]:
        """Seconds of each interval by the wall's clock and on the CPU (all threads of the process)."""
        pairs = list(zip(self.marks, self.marks[1:], strict=False))[self.warm_up :]
        return {
            "seconds": [after[0] - before[0] for before, after in pairs],
            "cpu_seconds": [after[1] - before[1] for before, after in pairs],
        }


def peak_bytes() -> int:
    """The largest resident memory of this process so far.

    From /proc where there is one: `ru_maxrss` also counts what the parent had before it started this program.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def main(jobs: dict[str, Job]) -> None:
    """Read the request named on the command line, run its job, and write the result it asks for."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    laps = Laps(request["warm_up"])
    loaded = peak_bytes()
    numbers = jobs[request["job"]](Path(request["inputs"]), request["options"], laps) or {}
    result = laps.intervals() | {"peak_bytes": peak_bytes(), "loaded_bytes": loaded, "numbers": numbers}
    Path(request["result"]).write_text(json.dumps(result), encoding="utf-8")
