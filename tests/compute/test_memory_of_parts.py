"""The estimate of a rank whose models are in parts, against numbers worked by hand, and what `auto` makes of it."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.compute import memory
from rlhf_dagster.compute.fitting import ways_to_fit
from rlhf_dagster.compute.free_memory import Free
from rlhf_dagster.compute.launchers import ray_ranks
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
from rlhf_dagster.training.footprint.shape import ModelSizes, Shape
from rlhf_dagster.training.footprint.sharding import learned_in_parts
from rlhf_dagster.training.input_sizes import model_sizes
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec, TinyModelSpec

NONE = Path("no-table-yet")
FOUR = ComputeSettings(device="cpu", launch="process", processes=4)
IN_PARTS = FOUR.changed(sharding="full")
LAYERS, LAYER, OUTSIDE = 2, 64 * 64, 1000 * 64
ALL = OUTSIDE + LAYERS * LAYER
READ = 4 * (OUTSIDE + 3 * LAYER)
"""Bytes of what is whole in a forward pass."""
LEARNED = 4 * (OUTSIDE + 3 * OUTSIDE + LAYER)
"""In a backward pass, whose end needs most where the embedding is larger than the layers: the weights around them, the
gradient of the output head and twice that of the embedding, and the gradients of the first layer."""


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


def learned(spec: Spec) -> Parts:
    return training_of(spec).learning_memory(spec)


def drawn(spec: Spec) -> Parts:
    return training_of(spec).drawing_memory(spec)


def test_what_is_outside_of_layers_is_read_from_names(model: Path) -> None:
    sizes = model_sizes(model)
    assert (sizes.parameters, sizes.outside, sizes.layer) == (ALL, OUTSIDE, LAYER)


def test_a_rank_of_sft_has_its_share_and_what_is_whole_for_a_time(model: Path) -> None:
    found, whole = parts_of(sft(model)), parts_of(sft(model, FOUR))
    assert (found.weights, found.gathered) == (4 * ALL / 4, LEARNED)
    # A gradient of a share, and two moments.
    assert found.optimizer == (4 + 8) * ALL / 4
    # All gradients, and the copy in which they are exchanged.
    assert (whole.weights, whole.optimizer, whole.gathered) == (4 * ALL, (8 + 8) * ALL, 0)


def test_of_large_layers_several_are_whole_with_their_gradients() -> None:
    """Llama 3 of 70 billion parameters: its 80 layers, and embedding and output head apart."""
    embedding, layer = 128_256 * 8192, 855_654_400
    shape = Shape(80, 8192, 128_256, 8192, 8192, 1024, 28_672)
    sizes = ModelSizes(80 * layer + 2 * embedding, shape, {}, 2 * embedding)
    # Both of them, the head's gradient, a layer and its gradient, the next one, and the gradient that is being sent.
    assert learned_in_parts(sizes, IN_PARTS).gathered == 4 * (2 * embedding + embedding + 4 * layer)
    # Without a large vocabulary the layers alone count.
    # With one larger than a layer, the end: both, the head's gradient, twice the embedding's, and a layer's gradients.
    thin = ModelSizes(4 * 3_163_136 + 2 * 30_720_000, Shape(4, 512, 60_000, 10, 512, 512, 1376), {}, 2 * 30_720_000)
    assert learned_in_parts(thin, IN_PARTS).gathered == 4 * (5 * 30_720_000 + 3_163_136)
    alone = ModelSizes(80 * layer, shape, {}, 0)
    assert learned_in_parts(alone, IN_PARTS).gathered == 4 * 4 * layer
    assert learned_in_parts(sizes, FOUR) == Parts()


def test_adapters_are_cut_with_the_base_under_them(model: Path) -> None:
    adapters = LAYERS * 2 * 2 * 64
    found = parts_of(sft(model, lora=LoraSettings(rank=2)))
    assert found.weights == 4 * (ALL + adapters) / 4
    assert found.optimizer == (4 + 8) * adapters / 4
    # Most is needed where the loss of a whole batch is measured.
    assert found.gathered == READ
    # A layer's gradients, with the copy in which they are sent.
    learning = learned_in_parts(model_sizes(model), IN_PARTS, LoraSettings(rank=2))
    assert learning.gathered == READ + 2 * 4 * adapters / LAYERS


def test_ppo_has_all_of_the_policy_while_it_draws(model: Path) -> None:
    # Policy, reference and reward model, of which one is trained.
    held, drawing, learning = (4 * ALL + 2 * 4 * ALL) / 4, drawn(ppo(model)), learned(ppo(model))
    assert (drawing.weights, drawing.optimizer, drawing.gathered) == (held, 8 * ALL / 4, 4 * (ALL + LAYER))
    assert (learning.weights, learning.optimizer, learning.gathered) == (held, 12 * ALL / 4, LEARNED)
    assert parts_of(ppo(model)) in (drawing, learning)
    best = drawn(ppo(model, validate_every=1, kl_budget=1.0))
    assert best.weights - drawing.weights == 4 * ALL / 4


def test_a_value_model_of_its_own_learns_before_the_policy(model: Path) -> None:
    both = learned(ppo(model, value="separate"))
    # Four models, of which two are trained; what is whole of one is in parts again before the other is read.
    assert (both.weights, both.optimizer, both.gathered) == (4 * 4 * ALL / 4, 2 * 12 * ALL / 4, LEARNED)


def test_what_is_drawn_from_in_bfloat16_is_the_policy_s_copy_alone(model: Path) -> None:
    half = IN_PARTS.changed(precision="bf16")
    both = drawn(ppo(model, half, value="separate"))
    # Two models that are trained, and two that are read in bfloat16.
    assert both.weights == (2 * 4 * ALL + 2 * 2 * ALL) / 4
    assert both.gathered == 4 * (ALL + LAYER) + 2 * ALL


def test_frozen_layers_are_cut_apart_from_those_of_the_reference(model: Path) -> None:
    # Of the layers' numbers, which are those beside 1,000 tokens and 64 positions of width 64, half are frozen.
    trained = (ALL - 1064 * 64) // 2
    found = learned(ppo(model, frozen_layers=1))
    # Policy, reference and reward model; gradients and moments of what is trained.
    assert found.weights == 3 * 4 * ALL / 4
    assert found.optimizer == (4 + 8) * trained / 4


def test_the_models_of_adapters_on_one_base_each_have_a_share_of_it(model: Path) -> None:
    adapters = LAYERS * 2 * 2 * 64
    found = drawn(ppo(model, lora=LoraSettings(rank=2, merge=False)))
    # SFT is the policy without its adapters; beside it stands the reward model.
    assert (found.weights, found.gathered) == ((2 * 4 * ALL + 4 * adapters) / 4, 4 * (ALL + LAYER))


def test_reward_model_and_dpo_are_divided_too(model: Path) -> None:
    dpo = learned(DpoSpec(model, NONE, NONE, DpoSettings(batch_size=4), compute=IN_PARTS))
    assert (dpo.weights, dpo.optimizer) == (4 * ALL / 4, 12 * ALL / 4)
    spec = RewardModelSpec(model, NONE, NONE, NONE, RewardModelSettings(batch_size=4, max_tokens=8), compute=IN_PARTS)
    assert (learned(spec).weights, learned(spec).optimizer, learned(spec).gathered) == (ALL, 12 * ALL / 4, READ)
    # Before it is trained, SFT beside it is sampled, unless demonstrations set the scale.
    before = drawn(spec)
    assert (before.weights, before.optimizer, before.gathered) == (2 * 4 * ALL / 4, 0, 4 * (ALL + LAYER))
    half = drawn(replace(spec, compute=IN_PARTS.changed(precision="bf16")))
    assert (half.weights, half.gathered) == ((2 + 4) * ALL / 4, 2 * (ALL + LAYER))
    assert drawn(replace(spec, settings=spec.settings.changed(normalisation="demonstrations"))) == Parts()


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


def test_a_machine_must_hold_whole_what_is_opened(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, plenty = ppo(model), Free(1 << 40, "the GPU", shared=False)
    # Four processes, of which one has two models whole.
    whole = 4 * 350_000_000 + 2 * 4 * ALL
    assert opening_bytes(spec, 4) == whole
    free(monkeypatch, plenty, whole - 1)
    with pytest.raises(UserError, match=r"PPO opens its models whole on .* before they are divided among ranks"):
        require_memory(spec)
    # Of four ranks on two machines two are here.
    require_memory(spec, plenty, here=2)
    free(monkeypatch, plenty, whole)
    require_memory(spec)
    # Whole models are opened by every rank, which is counted where they share memory.
    free(monkeypatch, plenty, 1)
    require_memory(ppo(model, FOUR))


def on_nodes(monkeypatch: pytest.MonkeyPatch, ranks: int, here: int, machine: int) -> None:
    """A training that Ray has found room for: so many ranks, some of them on this node, whose memory they share."""
    monkeypatch.setattr(ray_ranks, "world", lambda: ranks)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
    monkeypatch.setattr("rlhf_dagster.compute.free_memory.free_on_machine", lambda: machine)
    monkeypatch.setattr(memory, "free_on_machine", lambda: machine)


def test_parts_on_ray_are_as_many_as_it_has_room_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ppo(model, FOUR.changed(launch="ray", sharding="full", ray={"fewest_processes": 1}))
    for ranks, sharding in ((4, "full"), (3, "full"), (1, "none")):
        on_nodes(monkeypatch, ranks, 1, 1 << 40)
        settled_there = ray_ranks._fitting(asked).compute
        assert (settled_there.processes, settled_there.sharding) == (ranks, sharding)


def test_auto_on_ray_is_settled_by_a_node_s_share_of_the_ranks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = ppo(model, FOUR.changed(launch="ray", sharding="auto"))
    whole = required_bytes(ppo(model, FOUR.changed(launch="ray")))
    # Two of four ranks are on this node, and have all of its memory.
    on_nodes(monkeypatch, 4, 2, 2 * whole)
    assert ray_ranks._fitting(auto).compute.sharding == "none"
    on_nodes(monkeypatch, 4, 2, 2 * whole - 1)
    assert ray_ranks._fitting(auto).compute.sharding == "full"


def test_a_node_of_ray_must_hold_whole_what_its_rank_opens(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = replace(ppo(model), compute=FOUR.changed(launch="ray", sharding="full"))
    monkeypatch.setattr(memory, "required_bytes", lambda spec: 1)
    on_nodes(monkeypatch, 4, 1, opening_bytes(asked, 1) - 1)
    with pytest.raises(UserError, match="PPO opens its models whole on"):
        ray_ranks._fitting(asked)
    on_nodes(monkeypatch, 4, 1, opening_bytes(asked, 1))
    assert ray_ranks._fitting(asked).compute.processes == 4


def test_ranks_do_not_settle_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not shards(FOUR.changed(sharding="auto"))
    monkeypatch.setattr("rlhf_dagster.training.runtime.sharding.tensors.world", lambda: 4)
    with pytest.raises(UserError, match=r"compute\.sharding is auto, which is settled before ranks start"):
        shards(FOUR.changed(sharding="auto"))
    assert shards(IN_PARTS)
    assert not shards(FOUR)
