"""The curves of every stage of a small model: on the device beside the CPU, and each way of saving memory beside the
plain one."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.gpu.cases import ADAPTERS, CASE, IN_CODES, ONE_BASE, SMALL
from benchmarks.memory import make_model, make_specs
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
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
