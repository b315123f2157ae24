"""The estimate of a rank whose models are in parts, against numbers worked by hand, and what `auto` makes of it."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.compute import memory
from rlhf_dagster.compute.fitting import ways_to_fit
from rlhf_dagster.compute.free_memory import Free
from rlhf_dagster.compute.memory import opening_bytes, require_memory, required_bytes, settled
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    LoraSettings,
    PpoSettings,
    RewardModelSettings,
    SftSettings,
    TinyModelSettings,
)
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.input_sizes import model_sizes
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec, TinyModelSpec

NONE = Path("no-table-yet")
FOUR = ComputeSettings(device="cpu", launch="process", processes=4)
IN_PARTS = FOUR.changed(sharding="full")
LAYERS, LAYER, OUTSIDE = 2, 64 * 64, 1000 * 64
ALL = OUTSIDE + LAYERS * LAYER
GATHERED = 4 * (OUTSIDE + 3 * LAYER)
"""Bytes of what is whole in a pass."""
REDUCED = 2 * 4 * OUTSIDE
"""Of the largest gradient that is whole: the embedding's."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Headers alone of a model of an embedding and two layers of one map each."""
    config = {"n_layer": LAYERS, "n_embd": 64, "vocab_size": 1000, "n_positions": 64, "activation_function": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = {"wte.weight": [1000, 64], "h.0.map.weight": [64, 64], "h.1.map.weight": [64, 64]}
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [end, end + 4 * rows * columns]}
        end += 4 * rows * columns
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return tmp_path


def sft(model: Path, compute: ComputeSettings = IN_PARTS, **changes: Any) -> SftSpec:
    return SftSpec(model, NONE, NONE, SftSettings(batch_size=4, max_tokens=8).changed(**changes), compute=compute)


def ppo(model: Path, compute: ComputeSettings = IN_PARTS, **changes: Any) -> PpoSpec:
    settings = PpoSettings(batch_size=8, minibatches=1).changed(**changes)
    return PpoSpec(model, model, model, NONE, None, NONE, settings, compute=compute)


def parts_of(spec: Spec) -> Parts:
    return training_of(spec).peak_memory(spec)


def test_what_is_outside_of_layers_is_read_from_names(model: Path) -> None:
    sizes = model_sizes(model)
    assert (sizes.parameters, sizes.outside, sizes.layer) == (ALL, OUTSIDE, LAYER)


def test_a_rank_of_sft_has_its_share_and_what_is_whole_for_a_time(model: Path) -> None:
    found, whole = parts_of(sft(model)), parts_of(sft(model, FOUR))
    assert found.weights == 4 * ALL / 4 + GATHERED
    # A gradient of a share, and two moments.
    assert found.optimizer == (4 + 8) * ALL / 4 + REDUCED
    # All gradients, and the copy in which they are exchanged.
    assert (whole.weights, whole.optimizer) == (4 * ALL, (8 + 8) * ALL)


def test_adapters_are_cut_with_the_base_under_them(model: Path) -> None:
    adapters = LAYERS * 2 * 2 * 64
    found = parts_of(sft(model, lora=LoraSettings(rank=2)))
    assert found.weights == 4 * (ALL + adapters) / 4 + GATHERED
    assert found.optimizer == (4 + 8) * adapters / 4


def test_ppo_has_all_of_the_policy_while_it_samples(model: Path) -> None:
    # Policy, reference and reward model, of which one is trained.
    rollout = (4 * ALL + 8 * ALL + 2 * 4 * ALL) / 4 + 4 * (ALL + LAYER)
    update = (4 * ALL + 8 * ALL + 2 * 4 * ALL) / 4 + 4 * ALL / 4 + GATHERED + REDUCED
    found = parts_of(ppo(model))
    assert found.weights + found.optimizer in (rollout, update)
    best = parts_of(ppo(model, validate_every=1, kl_budget=1.0))
    assert best.weights - found.weights == 4 * ALL / 4


def test_a_value_model_and_frozen_layers_of_its_own(model: Path) -> None:
    both = parts_of(ppo(model, value="separate"))
    held = (2 * 4 * ALL + 2 * 8 * ALL + 2 * 4 * ALL) / 4
    assert both.weights + both.optimizer == held + 2 * 4 * ALL / 4 + 2 * (GATHERED + REDUCED)


def test_frozen_layers_are_cut_apart_from_those_of_the_reference(model: Path) -> None:
    # Of the layers' numbers, which are those beside 1,000 tokens and 64 positions of width 64, half are frozen.
    trained = (ALL - 1064 * 64) // 2
    found = parts_of(ppo(model, frozen_layers=1))
    # Policy, reference and reward model; gradients and moments of what is trained.
    assert found.weights == 3 * 4 * ALL / 4 + GATHERED
    assert found.optimizer == (4 + 8) * trained / 4 + REDUCED


def test_the_models_of_adapters_on_one_base_each_have_a_share_of_it(model: Path) -> None:
    adapters = LAYERS * 2 * 2 * 64
    found = parts_of(ppo(model, lora=LoraSettings(rank=2, merge=False)))
    # SFT is the policy without its adapters; beside it stands the reward model.
    assert found.weights == (2 * 4 * ALL + 4 * adapters) / 4 + 4 * (ALL + LAYER)


def test_reward_model_and_dpo_are_divided_too(model: Path) -> None:
    dpo = parts_of(DpoSpec(model, NONE, NONE, DpoSettings(batch_size=4), compute=IN_PARTS))
    assert (dpo.weights, dpo.optimizer) == (4 * ALL / 4 + GATHERED, 12 * ALL / 4)
    settings = RewardModelSettings(batch_size=4, max_tokens=8)
    reward = parts_of(RewardModelSpec(model, NONE, NONE, NONE, settings, compute=IN_PARTS))
    # Before it is trained, SFT beside it is sampled.
    assert (reward.weights, reward.optimizer) == (2 * 4 * ALL / 4 + 4 * (ALL + LAYER), 0)


def free(monkeypatch: pytest.MonkeyPatch, found: Free, machine: int = 1 << 40) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda compute: found)
    monkeypatch.setattr(memory, "free_on_machine", lambda: machine)


@pytest.mark.parametrize("made", [sft, ppo])
def test_auto_cuts_what_does_not_fit_whole(model: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    auto, whole, parts = (made(model, FOUR.changed(sharding=sharding)) for sharding in ("auto", "none", "full"))
    assert required_bytes(parts) < required_bytes(auto) == required_bytes(whole)
    free(monkeypatch, Free(required_bytes(whole), "the GPU", shared=False))
    assert settled(auto) == whole
    free(monkeypatch, Free(required_bytes(whole) - 1, "the GPU", shared=False))
    assert settled(auto) == parts
    # Ranks share what a machine has.
    free(monkeypatch, Free(4 * required_bytes(whole) - 1, "this machine", shared=True))
    assert settled(auto) == parts
    free(monkeypatch, Free(None, "this machine", shared=True))
    assert settled(auto) == whole
    assert (settled(whole), settled(parts)) == (whole, parts)


def test_auto_leaves_whole_what_cannot_be_cut(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, Free(1, "the GPU", shared=False))
    auto = FOUR.changed(sharding="auto")
    coded = sft(model, auto, lora=LoraSettings(rank=2, merge=False, base_bits=4))
    tiny = TinyModelSpec(NONE, NONE, TinyModelSettings(), auto)
    for spec in (coded, tiny, sft(model, auto.changed(optimizer="adamw_8bit")), sft(model, auto.changed(processes=1))):
        assert settled(spec).compute.sharding == "none"
        assert required_bytes(spec) > 0


def test_what_does_not_fit_whole_is_told_of_parts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sft(model, FOUR)
    free(monkeypatch, Free(required_bytes(whole) - 1, "the GPU", shared=False))
    with pytest.raises(UserError, match=r"on the GPU; set compute\.sharding to full, raise sft\.accumulate, lower"):
        require_memory(whole)
    require_memory(sft(model))
    ways = ways_to_fit(whole, required_bytes(sft(model)))
    assert "compute.sharding: full" in [way.text for way in ways]
    # With settings that models in parts do not have it is no way.
    assert not any("compute.sharding" in way.names and "compute.optimizer" in way.names for way in ways)


def test_a_machine_must_hold_whole_what_is_opened_for_gpus(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ppo(model)
    free(monkeypatch, Free(1 << 40, "the GPU", shared=False), opening_bytes(spec) - 1)
    with pytest.raises(UserError, match="PPO opens its models on this machine before they are divided among GPUs"):
        require_memory(spec)
    free(monkeypatch, Free(1 << 40, "the GPU", shared=False), opening_bytes(spec))
    require_memory(spec)
    # Whole models are opened by every rank, which is counted where they share memory.
    free(monkeypatch, Free(1 << 40, "the GPU", shared=False), 1)
    require_memory(ppo(model, FOUR))


def test_ranks_do_not_settle_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not shards(FOUR.changed(sharding="auto"))
    monkeypatch.setattr("rlhf_dagster.training.runtime.sharding.tensors.world", lambda: 4)
    with pytest.raises(UserError, match=r"compute\.sharding is auto, which is settled before ranks start"):
        shards(FOUR.changed(sharding="auto"))
    assert shards(IN_PARTS)
    assert not shards(FOUR)
