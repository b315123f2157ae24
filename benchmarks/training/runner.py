"""Runs a case's two sides in turn, each repetition in processes of its own."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.training.cases import Case, Side
from benchmarks.training.environments import python_of
from benchmarks.training.inputs import make_inputs
from benchmarks.training.statistics import Estimate, estimate, ratios, speed

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
QUIET = {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "PYTHONWARNINGS": "ignore"}


class SideError(Exception):
    """A measured process ended without a result; the text is its last line."""


@dataclass
class Measured:
    """One side of a case over all repetitions."""

    label: str
    speeds: list[float] = field(default_factory=list)
    """Units per second of each repetition, by the wall's clock."""
    cpu_speeds: list[float] = field(default_factory=list)
    """Units per second on the CPU."""
    laps: list[list[float]] = field(default_factory=list)
    """Wall seconds of each lap of each repetition."""
    peak_bytes: list[int] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)

    def add(self, result: dict[str, Any], amount: float) -> None:
        self.speeds.append(speed(result["seconds"], amount))
        self.cpu_speeds.append(speed(result["cpu_seconds"], amount))
        self.laps.append(result["seconds"])
        self.peak_bytes.append(result["peak_bytes"])
        self.numbers.append(result["numbers"])


@dataclass
class Outcome:
    """What was measured of a case; ``failure`` says why there is nothing."""

    case: Case
    ours: Measured
    peer: Measured
    failure: str = ""

    @property
    def ratio(self) -> Estimate:
        return ratios(self.ours.speeds, self.peer.speeds)

    @property
    def cpu_ratio(self) -> Estimate:
        return ratios(self.ours.cpu_speeds, self.peer.cpu_speeds)

    @property
    def memory_share(self) -> Estimate:
        """Our peak memory over the peer's."""
        return estimate([a / b for a, b in zip(self.ours.peak_bytes, self.peer.peak_bytes, strict=True)])


def run_case(case: Case, repetitions: int, cache: Path) -> Outcome:
    """Both sides ``repetitions`` times in turn; a side that fails ends the case."""
    inputs = make_inputs(case.shape, case.texts, cache / "inputs")
    outcome = Outcome(case, Measured(case.ours.label), Measured(case.peer.label))
    sides = [(case.ours, case.amount, outcome.ours), (case.peer, case.peer_amount, outcome.peer)]
    try:
        for repetition in range(repetitions):
            # Who goes first changes, so that a drift of the machine's speed favours neither.
            for side, amount, measured in sides if repetition % 2 == 0 else reversed(sides):
                measured.add(run_side(case, side, inputs, cache), amount)
    except SideError as failure:
        outcome.failure = str(failure)
    return outcome


def run_side(case: Case, side: Side, inputs: Path, cache: Path) -> dict[str, Any]:
    """One process, from start to result."""
    python = python_of(side.environment, cache)
    with tempfile.TemporaryDirectory() as folder:
        request, result = Path(folder) / "request.json", Path(folder) / "result.json"
        options = case.options | side.options
        content = {"job": case.job, "inputs": str(inputs), "options": options, "warm_up": case.warm_up}
        request.write_text(json.dumps(content | {"result": str(result)}), encoding="utf-8")
        command = [str(python), "-m", f"benchmarks.training.sides.{side.module}", str(request)]
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | ONE_THREAD | QUIET | {"PYTHONPATH": paths}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode or not result.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise SideError(f"{side.label}: {lines[-1] if lines else 'ended without a word'}")
        return json.loads(result.read_text(encoding="utf-8"))
