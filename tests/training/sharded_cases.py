"""Trainings whose models are tried in parts, and what must be the same of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ppo_modes import MODES, spec_of
from test_ranks import WORLD, Asked, weights
from toy_language import COMPUTE, VARIABLE, Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.specs import TrainingResult

IN_PARTS = COMPUTE.changed(launch="process", processes=WORLD, sharding="full")
LORA = LoraSettings(rank=2)
CLIPPED = {"max_grad_norm": 0.5}
UNEVEN = {"batch_size": 19, "minibatches": 2}
"""Episodes of which the ranks have 9 and 10."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {"batch_size": 23, "accumulate": 2, "weight_decay": 0.1}),
    "reward_model": ("reward_model", {"batch_size": 17, "ties": "davidson", "heads": 2, "lora": LORA}),
    # 350 comparisons in batches of 349: a rank has none of the last, and a pass of its own all the same.
    "kto": ("dpo", {"batch_size": 349, "loss": "kto", "lora": LORA, "accumulate": 2, "epochs": 1}),
    "dpo": ("dpo", {"batch_size": 64, "epochs": 1, "max_grad_norm": 0.1}),
    # A norm of gradients that took parameters while they were whole would leave out those around the layers.
    "separate": ("separate", CLIPPED | UNEVEN),
    "lora": ("lora", CLIPPED),
    "sft_lora": ("sft", {"lora": LORA}),
    "sft_own": ("sft", {"lora": LORA.changed(merge=False), "packing": True}),
    "sft_untrained": ("sft", {"epochs": 0}),
    "reward_model_rao_kupper": ("reward_model", {"ties": "rao_kupper", "heads": 3, "accumulate": 2}),
    "reward_model_own": ("reward_model", {"lora": LORA.changed(merge=False)}),
    "dpo_lora": ("dpo", {"batch_size": 64, "epochs": 1, "accumulate": 3, "lora": LORA}),
    "ragged": ("instructgpt", CLIPPED),
    **{f"{mode}_clipped": (mode, CLIPPED) for mode in MODES},
}
"""A stage, or a mode of PPO, and settings."""

Train = Callable[[str], TrainingResult]
"""What one process trains in a case."""
Spec = Callable[[str, Path], tuple[str, Any]]
"""The stage of a case, and its spec for one process that writes into a folder."""


@dataclass(frozen=True)
class Models:
    base: Path
    sft: Path
    reward: Path


def spec_of_case(models: Models, tables: Tables, case: str, output: Path) -> tuple[str, Any]:
    """The stage of a case, and its spec for one process."""
    kind, changes = CASES[case]
    if kind in MODES:
        spec: Any = spec_of(kind, models.sft, models.reward, tables, output)
        # 9 and 10 episodes are read 9 at a time: in one pass by a rank alone, and in two by both together.
        sampling = VARIABLE.changed(response_tokens=4) if case == "ragged" else spec.sampling
        kind, spec = "ppo", replace(spec, sampling=sampling.changed(batch_size=9))
    else:
        start, make = {
            "sft": (models.base, sft_spec),
            "reward_model": (models.sft, reward_spec),
            "dpo": (models.sft, dpo_spec),
        }[kind]
        spec = make(start, tables, output)
        changes = changes if kind != "reward_model" else {"epochs": 1} | changes
        spec = replace(spec, sampling=spec.sampling.changed(batch_size=128))  # few passes take less time
    return kind, replace(spec, settings=spec.settings.changed(**changes))


def sharded(trained: tuple[str, Any], compute: ComputeSettings = IN_PARTS, **asked: Any) -> Asked:
    stage, spec = trained
    return Asked(stage, replace(spec, compute=compute), **asked)


def require_the_same(outcome: dict[str, Any], folder: Path, expected: TrainingResult, others: float = 0.0) -> None:
    """The same curves, metrics and files, and the same weights but for a share of ``others`` in each tensor."""
    assert outcome["curves"].keys() == expected.curves.keys()
    for curve, values in expected.curves.items():
        assert outcome["curves"][curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
    assert outcome["metrics"] == pytest.approx(expected.metrics, rel=1e-3, abs=1e-3)
    files = {file.relative_to(expected.folder) for file in expected.folder.rglob("*") if file.is_file()}
    assert {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()} == files
    for file in (file for file in files if file.suffix == ".safetensors"):
        own, other = ({**weights(place / file)} for place in (folder, expected.folder))
        # What is added to all scores of a comparison alike has no gradient but that of rounding, which Adam scales up.
        for tensors in (own, other):
            tensors.pop("transformer.ln_f.bias" if "score.weight" in tensors else "", None)
        assert own.keys() == other.keys()
        for name, tensor in own.items():
            assert float(((tensor - other[name]).abs() > 3e-4).float().mean()) <= others, name
