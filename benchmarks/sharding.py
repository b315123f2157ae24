"""Memory of each rank with models whole and in parts: ``python -m benchmarks.sharding --help``.

Two ranks on CPUs train each stage for two steps, once with `compute.sharding: none` and once with `full`. Printed is
what a rank holds at most, in MB above what it had when all libraries were loaded, while it opens models, samples and
learns. glibc is told to give memory back at once, or its arenas would hide what is freed.
"""

import argparse
import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.memory import STAGES, make_model, make_specs
from rlhf_dagster.compute.memory import BUFFERS, placed
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import silent, spec_from_json, spec_to_json

RANKS = 2
ONE = "--one"
"""Of a process that is a rank."""
PHASES = {
    ("rlhf_dagster.training.ppo.train", "draw_episodes"): "rollout",
    ("rlhf_dagster.training.ppo.train", "optimise"): "update",
    ("rlhf_dagster.training.sft.train", "fit_policy"): "training",
    ("rlhf_dagster.training.dpo.train", "fit_policy"): "training",
    ("rlhf_dagster.training.reward.train", "fit"): "training",
}
"""Functions during which the peak is taken, by module and name; the rest is `other`."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FREE_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
MEGA = 1e6


def main() -> None:
    if sys.argv[1:2] == [ONE]:
        stage, spec, report = sys.argv[2:]
        Path(report).write_text(json.dumps(_peaks(stage, spec)), encoding="utf-8")
        return
    arguments = parse()
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model", arguments)
        rows = [
            _row(stage, sharding, arguments, model, folder)
            for stage in arguments.stages
            for sharding in ("none", "full")
        ]
    print(json.dumps(rows, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharding", description=__doc__)
    for size, default in (("layers", 12), ("width", 768), ("heads", 12), ("key-value-heads", 12), ("inner", 2048)):
        parser.add_argument(f"--{size}", type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--untied", action="store_true", help="an output head of its own beside the embedding")
    parser.add_argument("--rows", type=int, default=8, help="of a batch")
    parser.add_argument("--prompt", type=int, default=16, help="tokens")
    parser.add_argument("--response", type=int, default=16, help="tokens")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="as for benchmarks.memory")
    return parser.parse_args()


def _row(stage: str, sharding: str, arguments: argparse.Namespace, model: Path, folder: Path) -> dict[str, Any]:
    compute = ["compute.launch=process", f"compute.processes={RANKS}", f"compute.sharding={sharding}"]
    asked = argparse.Namespace(**vars(arguments) | {"set": [*arguments.set, *compute], "stages": [stage]})
    specs = make_specs(asked, model, folder)
    if stage == "ppo" and not (folder / "reward_model").exists():
        _ranks("reward_model", spec_to_json(specs["reward_model"]), folder)
    peaks = _ranks(stage, spec_to_json(specs[stage]), folder)
    estimate = TRAININGS[stage].peak_memory(placed(specs[stage])).total + BUFFERS
    return {"stage": stage, "sharding": sharding, "estimate": round(estimate / MEGA), **peaks}


def _ranks(stage: str, spec: str, folder: Path) -> dict[str, int]:
    """The largest peaks of any rank, in MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(RANKS):
        environment = os.environ | FREE_AT_ONCE | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.sharding", ONE, stage, spec, str(folder / f"rank-{rank}")]
        processes.append(subprocess.Popen(command, env=environment))  # noqa: S603
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"{stage}: a rank failed")
    reports = [json.loads((folder / f"rank-{rank}").read_text(encoding="utf-8")) for rank in range(RANKS)]
    return {phase: round(max(report[phase] for report in reports) / MEGA) for phase in reports[0]}


def _peaks(stage: str, spec_json: str) -> dict[str, int]:
    """Bytes that this rank held at most in each phase, beyond what it held with all its libraries."""
    import transformers.models.llama.modeling_llama  # noqa: F401

    train = TRAININGS[stage].load()
    peaks: dict[str, int] = {}
    before = _resident("VmRSS")
    for (module, name), phase in PHASES.items():
        owner = importlib.import_module(module)
        setattr(owner, name, _watched(getattr(owner, name), phase, peaks))
    CLEAR.write_text("5", encoding="ascii")
    train(spec_from_json(TRAININGS[stage].spec, spec_json, "spec"), silent, KEEP_NOTHING)
    _note("other", peaks)
    return {phase: peak - before for phase, peak in peaks.items()}


def _watched(function: Callable[..., Any], phase: str, peaks: dict[str, int]) -> Callable[..., Any]:
    def watched(*arguments: Any, **named: Any) -> Any:
        _note("other", peaks)
        try:
            return function(*arguments, **named)
        finally:
            _note(phase, peaks)

    return watched


def _note(phase: str, peaks: dict[str, int]) -> None:
    """Count what was held since the last note to ``phase``."""
    peaks[phase] = max(peaks.get(phase, 0), _resident("VmHWM"))
    CLEAR.write_text("5", encoding="ascii")


def _resident(name: str) -> int:
    """Bytes of memory, now (VmRSS) or at most (VmHWM)."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
