"""Two hosts of one core beside one, on Ray: ``sudo python -m benchmarks.two_hosts [--turns 3]``.

The hosts are network namespaces of this machine, and each has a core of its own. In turn, on one host and on two,
responses to 2,000 prompts are drawn and SFT trains one rank a host. Said are seconds of the whole job, of which it
takes some to begin, and from its first part or step to its last; and whether both came to the same samples and losses.
Nothing else may run on this machine.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ray_hosts import Hosts, hosts

from benchmarks.memory import make_model, make_specs
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.shards.on_ray import rows_on_ray
from rlhf_dagster.compute.shards.task import ShardTask
from rlhf_dagster.compute.work import Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.specs import SftSpec

BAR = 1.6


@dataclass
class Clock:
    """When a job went on."""

    began: float = field(default_factory=time.monotonic)
    seen: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, step: int, *_: int, **__: float) -> None:
        self.seen.append((step, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Of the whole job, and of a step or part in the middle of it times their number."""
        whole = time.monotonic() - self.began
        (first, since), (last, until) = self.seen[0], self.seen[-1]
        return {"whole": whole, "going": (until - since) / (last - first) * last}


def main() -> None:
    arguments = parse()
    with TemporaryDirectory() as name, hosts(2, pinned=True) as made:
        os.environ.update(made.cluster.environment)
        work = Measured(made, Path(name), arguments)
        turns = [work.turn(number) for number in range(arguments.turns)]
    ratios = {
        f"{job}, {what}": round(statistics.median(turn[job][0][what] / turn[job][1][what] for turn in turns), 2)
        for job in ("sampling", "sft")
        for what in ("whole", "going")
    }
    print(
        json.dumps({"seconds on one host and on two": turns, "one host takes so many times as long": ratios}, indent=1)
    )
    raise SystemExit(min(ratios.values()) < BAR)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_hosts", description=__doc__)
    for size, default in (("layers", 6), ("width", 384), ("heads", 6), ("key-value-heads", 6), ("inner", 1024)):
        parser.add_argument(f"--{size}", type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=50, help="of a batch")
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--response", type=int, default=64, help="tokens")
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=40, help="of SFT")
    parser.add_argument("--turns", type=int, default=3)
    return parser.parse_args()


class Measured:
    """Both jobs on hosts that this starts and ends."""

    def __init__(self, made: Hosts, folder: Path, arguments: argparse.Namespace) -> None:
        self._hosts, self._folder = made, folder
        model = make_model(folder / "model", arguments)
        asked = argparse.Namespace(**vars(arguments) | {"set": [f"sft.epochs={arguments.steps}"], "stages": ["sft"]})
        sft = cast("SftSpec", make_specs(asked, model, folder)["sft"])
        prompts = read_parquet(folder / "prompts.parquet").to_pandas()["text"].tolist()
        prompts = [prompts[number % len(prompts)] for number in range(arguments.prompts)]
        self._sft, self._task = sft, ShardTask("samples", model, prompts, sft.sampling, sft.compute)

    def turn(self, number: int) -> dict[str, Any]:
        """Seconds of each job on one host and on two, of which every other turn begins with the two."""
        order = (1, 2) if number % 2 == 0 else (2, 1)
        found = {count: self._on(count) for count in order}
        if found[1]["drawn"] != found[2]["drawn"]:
            raise SystemExit("Two hosts have drawn other samples than one.")
        apart = max(abs(one - two) for one, two in zip(found[1]["losses"], found[2]["losses"], strict=True))
        if apart > 1e-3:
            raise SystemExit(f"Losses of two hosts are up to {apart} from those of one.")
        turn = {job: [found[count][job] for count in (1, 2)] for job in ("sampling", "sft")}
        print(json.dumps(turn), file=sys.stderr, flush=True)
        return turn

    def _on(self, count: int) -> dict[str, Any]:
        for number in range(1, count + 1):
            self._hosts.start(number)
        compute = self._compute(count)
        try:
            rows, sampling = self._timed(
                "sampling", lambda work, clock: rows_on_ray(self._drawing(compute), work, clock)
            )
            done, sft = self._timed(
                "sft", lambda work, clock: run_training("sft", self._trained(compute, work), work, clock)
            )
        finally:
            for number in range(count, 0, -1):
                self._hosts.end(number)
        return {"sampling": sampling, "sft": sft, "drawn": rows, "losses": done.result.curves["loss"]}

    def _timed(self, name: str, do: Callable[[Work, Clock], Any]) -> tuple[Any, dict[str, float]]:
        work, clock = Work(self._folder / "work" / name, LocalStore(self._folder)), Clock()
        done = do(work, clock)
        seconds = clock.seconds()
        work.clear()
        return done, seconds

    def _drawing(self, compute: ComputeSettings) -> ShardTask:
        return replace(self._task, compute=compute)

    def _trained(self, compute: ComputeSettings, work: Work) -> SftSpec:
        return replace(self._sft, compute=compute, output=work.output)

    def _compute(self, count: int) -> ComputeSettings:
        ray = {
            "address": self._hosts.cluster.address,
            "placement": "SPREAD",
            "environment": {"GLOO_SOCKET_IFNAME": "eth0"},
        }
        return ComputeSettings(threads=1, device="cpu", launch="ray", processes=count, checkpoint_seconds=3600, ray=ray)


if __name__ == "__main__":
    main()
