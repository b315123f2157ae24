"""Ways to fit, each computed again; and what a context is too short for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from rlhf_dagster.compute.fitting import MOST_SETTINGS, ways_to_fit
from rlhf_dagster.compute.memory import required_bytes
from rlhf_dagster.config.training import ComputeSettings, LoraSettings, PpoSettings, SftSettings
from rlhf_dagster.training.checkpoints.outlines import write_outline
from rlhf_dagster.training.specs import PpoSpec, SftSpec, Spec

NONE = Path("no-table-yet")
GPU = ComputeSettings(device="cuda")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outline of a Llama of 26 million parameters."""
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=6,
        num_attention_heads=8,
        vocab_size=8192,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return write_outline(config, tmp_path_factory.mktemp("model"))


def sft(model: Path, **changes: Any) -> SftSpec:
    settings = SftSettings(batch_size=32, max_tokens=256).changed(**changes)
    return SftSpec(model, NONE, NONE, settings, compute=GPU)


def ppo(model: Path, **changes: Any) -> PpoSpec:
    settings = PpoSettings(batch_size=32, minibatches=1).changed(**changes)
    return PpoSpec(model, model, model, NONE, None, NONE, settings, compute=GPU)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
@pytest.mark.parametrize("made", [sft, ppo])
def test_every_way_fits_and_says_what_it_then_needs(model: Path, made: Any, share: float) -> None:
    spec = made(model)
    free = int(share * required_bytes(spec))
    ways = ways_to_fit(spec, free)
    assert 1 <= len(ways) <= 3
    for way in ways:
        changed: Spec = spec
        for change in way.changes:
            changed = change.apply(changed)
        assert way.needed == required_bytes(changed) <= free
        assert len(way.changes) <= MOST_SETTINGS
    assert len({frozenset(way.names) for way in ways}) == len(ways)


def test_the_cheapest_way_is_the_first(model: Path) -> None:
    spec = sft(model)
    halves = required_bytes(replace(spec, settings=spec.settings.changed(accumulate=2)))
    first = ways_to_fit(spec, halves)[0]
    assert first.text == "sft.accumulate: 2"
    assert first.needed == halves
    # A byte less needs a larger number, not another setting.
    assert ways_to_fit(spec, halves - 1)[0].text == "sft.accumulate: 4"


def test_no_way_repeats_the_settings_of_a_cheaper_one(model: Path) -> None:
    spec = sft(model)
    ways = ways_to_fit(spec, int(0.9 * required_bytes(spec)))
    assert not any(one.names <= other.names for one in ways for other in ways if one is not other)


def test_weights_alone_that_do_not_fit_have_no_way(model: Path) -> None:
    assert ways_to_fit(sft(model), 10_000_000) == []


def test_settings_that_need_others_come_with_them(model: Path) -> None:
    spec = ppo(model, lora=LoraSettings(rank=8), accumulate=32)
    spec = replace(spec, compute=GPU.changed(gradient_checkpointing=True, precision="bf16", logits_mib=64))
    for way in ways_to_fit(spec, int(0.9 * required_bytes(spec))):
        assert "ppo.lora" not in way.names, "it has adapters"
        assert "ppo.lora.base_bits" not in way.names or "ppo.lora.merge" in way.names


def test_frozen_layers_and_adapters_are_not_proposed_together(model: Path) -> None:
    spec = ppo(model, frozen_layers=3)
    for way in ways_to_fit(spec, int(0.5 * required_bytes(spec))):
        assert not any(name.startswith("ppo.lora") for name in way.names)
