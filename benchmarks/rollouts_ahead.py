"""Rollouts one update ahead against none: ``python -m benchmarks.rollouts_ahead --help``.

Trains the embedded task's policy by PPO with `rollouts_ahead` 0 and 1 over several seeds, and compares reward and KL:
of every update, the mean of the seeds of 1 against the 95% interval of the mean of 0, and the paired difference of the
last updates. Then it takes the time of an update where the sampler is a server in another process (a stand-in for vLLM,
which samples by this package): with 0 it waits for the trainer and the trainer for it; with 1 they work at once.
Numbers go to the standard output as JSON.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.training.task_inputs import COMPUTE, SAMPLING, make_task_inputs
from rlhf_dagster.config.training import ComputeSettings, PpoSettings
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.specs import PpoSpec

LAST = 10
"""Updates that the compared means are over."""
SETTINGS = PpoSettings(batch_size=64, minibatches=2, epochs=2, kl_coef=0.05, kl_target=None)
UNTIMED = 2
"""Updates at the beginning that are not timed."""


def main() -> None:
    arguments = parse()
    folder = make_task_inputs(arguments.cache)
    print(json.dumps(learning(folder, arguments.seeds, arguments.updates), indent=1), flush=True)
    print(json.dumps(wall_times(folder, arguments.timed, arguments.repetitions, arguments.epochs), indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts_ahead", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--timed", type=int, default=10, help="updates whose time is taken")
    parser.add_argument("--epochs", type=int, default=2, help="of a timed update")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks"))
    return parser.parse_args()


def learning(folder: Path, seeds: int, updates: int) -> dict[str, Any]:
    """Both curves of both ways, the seeds of one between those of the other."""
    curves: dict[str, list[dict[str, list[float]]]] = {"0": [], "1": []}
    for seed in range(1, seeds + 1):
        for ahead, found in curves.items():
            settings = SETTINGS.changed(updates=updates, rollouts_ahead=int(ahead), learning_rate=1e-4)
            found.append(train(folder, settings, COMPUTE, seed)[0])
    return {
        name: compared(*(np.array([c[name] for c in found]) for found in curves.values())) for name in ("reward", "kl")
    }


def compared(none: np.ndarray, ahead: np.ndarray) -> dict[str, Any]:
    """[seeds, updates] of a curve with 0 and with 1 ahead.

    `inside` is the share of updates at which the mean with 1 is within the 95% interval of the mean with 0 (Student's
    t over seeds); `inside_of_a_seed` the same for the interval of a single further seed. `last` are means over the last
    updates, and `difference` that of the same seeds, with the half-width of its 95% interval.
    """
    seeds, updates = none.shape
    quantile = float(stats.t.ppf(0.975, seeds - 1))
    deviation = none.std(axis=0, ddof=1)
    off = np.abs(ahead.mean(axis=0) - none.mean(axis=0))
    last = [curve[:, -min(LAST, updates) :].mean(axis=1) for curve in (none, ahead)]
    difference = last[1] - last[0]
    return {
        "inside": float((off <= quantile * deviation / math.sqrt(seeds)).mean()),
        "inside_of_a_seed": float((off <= quantile * deviation * math.sqrt(1 + 1 / seeds)).mean()),
        "last": [float(each.mean()) for each in last],
        "difference": [float(difference.mean()), float(quantile * difference.std(ddof=1) / math.sqrt(seeds))],
        "curves": [[round(float(value), 4) for value in curve.mean(axis=0)] for curve in (none, ahead)],
        "deviations": [round(float(value), 4) for value in deviation],
    }


def wall_times(folder: Path, updates: int, repetitions: int, epochs: int) -> dict[str, Any]:
    """Seconds of an update, the median of the timed ones, by repetition; the two ways take turns."""
    found: dict[str, list[float]] = {"0": [], "1": []}
    with stand_in(folder / "sft") as url:
        compute = COMPUTE.changed(rollout_backend="vllm_server", rollout_server=url)
        for _ in range(repetitions):
            for ahead, medians in found.items():
                settings = SETTINGS.changed(updates=updates + UNTIMED + 1, rollouts_ahead=int(ahead), epochs=epochs)
                _, times = train(folder, settings, compute, 1)
                # The last update draws nothing ahead.
                medians.append(float(np.median(np.diff(times)[UNTIMED - 1 : -1])))
    shares = [ahead / none for none, ahead in zip(found["0"], found["1"], strict=True)]
    return {"seconds of an update": found, "share": [round(share, 3) for share in shares]}


def train(
    folder: Path, settings: PpoSettings, compute: ComputeSettings, seed: int
) -> tuple[dict[str, list[float]], list[float]]:
    """The curves of a training, and when each of its updates was done."""
    times: list[float] = []
    with TemporaryDirectory() as scratch:
        paths = (folder / "sft", folder / "sft", folder / "reward", folder / "prompts.parquet", None)
        spec = PpoSpec(*paths, Path(scratch) / "policy", settings, SAMPLING, seed=seed, compute=compute)
        result = train_ppo(replace(spec), lambda *_, **__: times.append(time.perf_counter()))
    return result.curves, times


@contextmanager
def stand_in(model: Path) -> Iterator[str]:
    """The address of a sampler in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stand_in_engine", str(model)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
