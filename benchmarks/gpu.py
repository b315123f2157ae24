"""What a GPU has to show, in one command of at most eight minutes: ``python -m benchmarks.gpu --out FILE``.

Every stage of a small model beside the same on the CPU, and every way of saving memory beside the plain one; NCCL; the
speed of rollouts and updates at 124 million and 1.3 billion parameters beside what the card's matrix products and
memory can do; peak memory beside its estimate. ``--device cpu`` runs the same code on small sizes without a GPU.
TRL's side is timed by ``python -m benchmarks.training`` in environments of its own, which a machine without a network
cannot make: the answer says whether TRL is there.
"""

import argparse
import json
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from benchmarks.memory import STAGES, make_model, make_specs, measured
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.records.schemas import PROMPTS
from rlhf_dagster.records.tables import read_table
from rlhf_dagster.training.input_sizes import parameters_of
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import silent

PPO_EQUAL, PPO_ALIKE = ("reward", "kl", "value_loss"), ("log_ratio_first",)
"""PPO's curves that are compared: where numbers are rounded otherwise, other tokens are drawn, and what is left to see
is that sampler and trainer agree."""
ALIKE = 0.02
"""Tolerance from which numbers are rounded otherwise."""


class Way(NamedTuple):
    """Settings, the way they are compared with, and how much a curve may differ, as a share of its largest number."""

    settings: list[str]
    beside: str
    tolerance: float


ADAPTERS = "lora={rank: 8}"
ONE_BASE = "lora={rank: 8, merge: false}"
IN_CODES = "lora={rank: 8, merge: false, base_bits: 4}"
WAYS = {
    "plain": Way([], "", 0),
    "bf16": Way(["compute.precision=bf16"], "plain", 0.05),
    "logits in pieces": Way(["compute.logits_mib=1"], "plain", 1e-3),
    "checkpointing": Way(["compute.gradient_checkpointing=true"], "plain", 1e-3),
    "adapters": Way([ADAPTERS], "", 0),
    "one base": Way([ONE_BASE], "adapters", 1e-3),
    "one base in 4 bits": Way([IN_CODES], "adapters", 0.2),
    "weights in bf16, 8-bit Adam": Way(
        ["compute.precision=bf16", "compute.trained_weights=bf16", "compute.optimizer=adamw_8bit"], "bf16", 0.05
    ),
}
LARGE = {
    "124M": {"layers": 12, "width": 768, "heads": 12, "inner": 2048, "vocabulary": 50_257},
    "1.3B": {"layers": 24, "width": 2048, "heads": 16, "inner": 5632, "vocabulary": 32_000},
}
SMALL = {"tiny": {"layers": 2, "width": 64, "heads": 4, "inner": 172, "vocabulary": 2048}}
"""In place of these on a CPU."""
CASE: dict[str, Any] = {"model": None, "rows": 8, "prompt": 32, "response": 32, "stages": STAGES, "set": []}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="a file for the answer, which is printed in any case")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU; `--device cpu` runs the same on small sizes.")
    answer: dict[str, Any] = {"device": _name(options.device), "torch": torch.__version__}
    for part in (rates, equality, nccl, speed, memory):
        began = time.perf_counter()
        answer[part.__name__] = part(options.device)
        answer[part.__name__]["seconds"] = round(time.perf_counter() - began, 1)
        _write(answer, options.out)
    answer["trl"] = "installed" if find_spec("trl") else "not installed"
    _write(answer, options.out)
    print(json.dumps(answer, indent=1))


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _write(answer: dict[str, Any], out: Path | None) -> None:
    """After each part, so that what is there is not lost where a later one fails or takes too long."""
    if out:
        out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


def rates(device: str) -> dict[str, Any]:
    """Floating-point operations of bf16 matrix products and bytes of copies, each a second, the best of some runs."""
    side, cells = (8192, 1 << 28) if device == "cuda" else (512, 1 << 22)
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.empty(cells, device=device) for _ in range(2))
    product = _best(lambda: torch.mm(one, other), device)
    copy = _best(lambda: target.copy_(source), device)
    return {"matrix products": 2 * side**3 / product, "copies": 2 * 4 * cells / copy}


def _best(call: Callable[[], Any], device: str, runs: int = 10) -> float:
    """Seconds of the fastest of some calls."""
    return min(_timed(call, device) for _ in range(runs))


def _timed(call: Callable[[], Any], device: str) -> float:
    _wait(device)
    began = time.perf_counter()
    call()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def equality(device: str) -> dict[str, Any]:
    """The curves of every stage, each way on ``device`` beside another way there, and the plain one beside the CPU."""
    sizes = CASE | SMALL["tiny"] | {"key_value_heads": 2}
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model", Namespace(**sizes))
        found = {way: _curves(sizes, model, folder / way, device, WAYS[way].settings) for way in WAYS}
        found["on the CPU"] = _curves(sizes, model, folder / "cpu", "cpu", [])
    pairs = [("plain", "on the CPU", 1e-2)]
    pairs += [(way, asked.beside, asked.tolerance) for way, asked in WAYS.items() if asked.beside]
    return {f"{way} / {beside}": _compared(found[way], found[beside], within) for way, beside, within in pairs}


def _curves(
    sizes: dict[str, Any], model: Path, folder: Path, device: str, settings: list[str]
) -> dict[str, dict[str, list[float]]]:
    """The compared curves of each stage."""
    folder.mkdir()
    arguments = Namespace(**sizes | {"set": [f"compute.device={device}", *settings]})
    curves: dict[str, dict[str, list[float]]] = {}
    for stage, spec in make_specs(arguments, model, folder).items():
        # From the plain model, also where adapters stay, so that all ways begin alike.
        begins = {name: model for name in ("sft", "start") if stage != "sft" and hasattr(spec, name)}
        result = TRAININGS[stage].load()(replace(spec, **begins), silent, KEEP_NOTHING)
        names = (*PPO_EQUAL, *PPO_ALIKE) if stage == "ppo" else ("loss",)
        curves[stage] = {name: result.curves[name] for name in names}
    return curves


def _compared(
    one: dict[str, dict[str, list[float]]], other: dict[str, dict[str, list[float]]], tolerance: float
) -> dict[str, Any]:
    """The largest difference of each stage's curves, as a share of the largest number, and whether it is small."""
    left_out = PPO_EQUAL if tolerance > ALIKE else ()
    found = {
        stage: max(_difference(curve, other[stage][name]) for name, curve in curves.items() if name not in left_out)
        for stage, curves in one.items()
    }
    return {"differences": found, "tolerance": tolerance, "equal": max(found.values()) <= tolerance}


def _difference(one: list[float], other: list[float]) -> float:
    scale = max(1.0, *(abs(number) for number in other))
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) / scale


def nccl(device: str) -> dict[str, Any]:
    """Whether the ranks of this machine sum a tensor: by NCCL on GPUs, by gloo elsewhere."""
    backend, ranks = ("nccl", torch.cuda.device_count()) if device == "cuda" else ("gloo", 2)
    with TemporaryDirectory() as name:
        torch.multiprocessing.spawn(_sum, (ranks, name, backend), nprocs=ranks)
        sums = [float(Path(name, str(rank)).read_text()) for rank in range(ranks)]
    return {"backend": backend, "ranks": ranks, "equal": all(found == sum(range(ranks)) for found in sums)}


def _sum(rank: int, ranks: int, folder: str, backend: str) -> None:
    """On a rank: write the sum over all ranks of their numbers."""
    dist.init_process_group(backend, f"file://{folder}/meeting", rank=rank, world_size=ranks)
    tensor = torch.tensor([float(rank)], device=f"cuda:{rank}" if backend == "nccl" else "cpu")
    dist.all_reduce(tensor)
    Path(folder, str(rank)).write_text(str(float(tensor)))
    dist.destroy_process_group()


def speed(device: str) -> dict[str, Any]:
    """Tokens a second of rollouts and of whole PPO updates, and the shares of the card's rates that they use."""
    return {name: _speed(sizes, device) for name, sizes in _sizes(device).items()}


def _speed(sizes: dict[str, Any], device: str) -> dict[str, Any]:
    tokens = (256, 256) if device == "cuda" else (16, 16)
    case = CASE | {"rows": 64, "prompt": tokens[0], "response": tokens[1], "stages": ("ppo",)} | sizes
    case |= {"key_value_heads": sizes["heads"], "set": [f"compute.device={device}", "compute.precision=bf16", ADAPTERS]}
    with _case(case) as (model, specs):
        rollout = _rollout_seconds(model, specs["ppo"], device)
        TRAININGS["reward_model"].load()(specs["reward_model"], silent, KEEP_NOTHING)
        update = _update_seconds(specs["ppo"], device)
        parameters, drawn = parameters_of(model), case["rows"] * tokens[1]
    read = case["rows"] * sum(tokens)
    # A forward pass is 2 operations for each parameter and token; an update samples, reads twice and trains (3 passes
    # but for the weights' gradients, which adapters do not need).
    work = 2.0 * parameters * read
    bound = rates(device)
    return {
        "parameters": parameters,
        "rollout tokens a second": drawn / rollout,
        "update tokens a second": read / update,
        # Each token that is drawn reads all weights once for all rows, in bf16.
        "share of the memory rate in rollouts": 2 * parameters * tokens[1] / rollout / bound["copies"],
        "share of the matrix rate in updates": 5 * work / update / bound["matrix products"],
    }


def _rollout_seconds(model: Path, spec: Any, device: str) -> float:
    policy = load_policy(model, spec.compute)
    prompts = read_table(spec.prompts, PROMPTS)["text"].tolist()
    draw = lambda: sample(policy, prompts, spec.sampling, 0, compute=spec.compute)  # noqa: E731
    draw()
    return _timed(draw, device)


def _update_seconds(spec: Any, device: str) -> float:
    """The second of two updates: the first one has what is done once."""
    ends: list[float] = []

    def note(step: int, total: int, **numbers: float) -> None:
        _wait(device)
        ends.append(time.perf_counter())

    TRAININGS["ppo"].load()(spec, note, KEEP_NOTHING)
    return ends[-1] - ends[-2]


def memory(device: str) -> dict[str, Any]:
    """Peak memory of every stage beside its estimate, with all weights and with one base."""
    ways = {"all weights": [], "one base": [ONE_BASE], "one base in 4 bits": [IN_CODES]}
    extra = [f"compute.device={device}", "compute.precision=bf16", "compute.gradient_checkpointing=true"]
    found = {}
    for size, sizes in _sizes(device).items():
        for way, settings in ways.items():
            case = CASE | {"prompt": 128, "response": 128} | sizes | {"key_value_heads": sizes["heads"]}
            with TemporaryDirectory() as name:
                arguments = Namespace(**case | {"set": [*extra, *settings]})
                found[f"{size}, {way}"] = {row.pop("stage"): row for row in measured(arguments, Path(name))}
    return found


def _sizes(device: str) -> dict[str, dict[str, Any]]:
    return LARGE if device == "cuda" else SMALL


@contextmanager
def _case(case: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    with TemporaryDirectory() as name:
        model = make_model(Path(name, "model"), Namespace(**case))
        yield model, make_specs(Namespace(**case), model, Path(name))


if __name__ == "__main__":
    main()
