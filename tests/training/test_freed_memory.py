"""What a part of a stage needed alone is free before the next part, without luck: Python looks for no circles here."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_language import COMPUTE, FIXED, Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import PpoSettings, TinyModelSettings
from rlhf_dagster.evaluation.perplexity import alignment_tax
from rlhf_dagster.training.models import policies
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import PpoSpec, silent

TEXTS = ["red dog . good cat .", "blue dog .", "good bad red blue dog cat ."] * 20
OTHERS = 0.2
"""Share of a model's memory for what is not weights."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside whose weights batches are small."""
    shape = TinyModelSettings(layers=2, width=256, heads=2, context=24, steps=1, batch_size=4)
    return make_tiny_model(TEXTS, shape, tmp_path_factory.mktemp("large") / "base", COMPUTE).folder


def held() -> int:
    """Bytes of all tensors that Python knows."""
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    grads = [one.grad for one in tensors if one.is_leaf and one.grad is not None]
    return sum((storages | {one.data_ptr(): one.nbytes for one in grads}).values())


def size_of(folder: Path) -> int:
    return sum(weight.nbytes for weight in load_policy(folder, COMPUTE).model.parameters())


def spec_of(stage: str, large: Path, tables: Tables, output: Path) -> Any:
    if stage == "sft":
        return sft_spec(large, tables, output)
    if stage == "dpo":
        spec: Any = dpo_spec(large, tables, output)
        return replace(spec, settings=spec.settings.changed(epochs=0.2))
    if stage == "reward_model":
        spec = reward_spec(large, tables, output)
        return replace(spec, settings=spec.settings.changed(epochs=0.2, normalisation_samples=8))
    settings = PpoSettings(updates=1, batch_size=8, learning_rate=1e-3)
    ppo = PpoSpec(large, large, None, tables.prompts, None, output, settings, FIXED, compute=COMPUTE)
    return replace(ppo, reward_function=f"{__file__}:by_length")


def by_length(prompts: list[str], responses: list[str]) -> list[float]:
    return [len(response) / 10 for response in responses]


@pytest.mark.parametrize(("stage", "models"), [("sft", 1), ("dpo", 1), ("reward_model", 1), ("ppo", 2)])
def test_a_model_is_written_without_what_only_its_training_needs(
    stage: str,
    models: int,
    large: Path,
    tables: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_collector: None,
) -> None:
    """Neither moments nor gradients, nor the policy that a reward model was normalised on; PPO has its reference."""
    size, before = size_of(large), held()
    sizes: list[int] = []
    where = f"rlhf_dagster.training.{stage.removesuffix('_model')}.train"
    module = __import__(where, fromlist=["train"])
    own: Callable[[Path], AbstractContextManager[Path]] = module.writing_output

    def writing(output: Path) -> AbstractContextManager[Path]:
        sizes.append(held() - before)
        return own(output)

    monkeypatch.setattr(module, "writing_output", writing)
    train_here(stage, spec_of(stage, large, tables, tmp_path / "out"), silent, KEEP_NOTHING)
    assert models * size <= sizes[0] <= (models + OTHERS) * size
    assert held() - before <= OTHERS * size


def test_perplexities_hold_one_model_at_a_time(
    large: Path, monkeypatch: pytest.MonkeyPatch, no_collector: None
) -> None:
    size, before = size_of(large), held()
    sizes: list[int] = []
    own = policies.load_policy

    def load(*arguments: Any) -> Any:
        sizes.append(held() - before)
        return own(*arguments)

    monkeypatch.setattr(policies, "load_policy", load)
    alignment_tax(large, large, TEXTS[:3], COMPUTE)
    assert len(sizes) == 2 and max(sizes) <= OTHERS * size
