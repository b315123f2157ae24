"""Models of 7 billion parameters with adapters, estimated: what fits on a card of 80 GB, and on one of 24."""

from pathlib import Path

import pytest
from real_sizes import CONFIGS, PARAMETERS, stages

from rlhf_dagster.compute.memory import required_bytes
from rlhf_dagster.compute.stages import loop_specs
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.training.checkpoints.outlines import write_outline
from rlhf_dagster.training.input_sizes import model_sizes

SHARED = LoraSettings(rank=16, alpha=32, merge=False)
IN_FOUR_BITS = SHARED.changed(base_bits=4)


@pytest.fixture(scope="module", params=CONFIGS)
def outline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    name = request.param
    return name, write_outline(CONFIGS[name], tmp_path_factory.mktemp(name))


def test_an_outline_has_the_parameters_of_the_model(outline: tuple[str, Path]) -> None:
    name, folder = outline
    assert model_sizes(folder).parameters == PARAMETERS[name]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1_000_000


@pytest.mark.parametrize("stage", ["SFT", "reward model", "PPO", "DPO"])
def test_every_stage_fits(outline: tuple[str, Path], stage: str) -> None:
    model, needed = outline[1], {}
    for name, lora in (("bf16", SHARED), ("4 bits", IN_FOUR_BITS)):
        needed[name] = required_bytes(stages(model, lora)[stage])
    assert needed["bf16"] <= 40e9
    assert needed["4 bits"] <= 20e9
    # Not because something is left out: the weights alone, in bfloat16 and in four bits.
    assert needed["bf16"] > 2 * PARAMETERS[outline[0]]
    assert needed["4 bits"] > PARAMETERS[outline[0]] / 2


@pytest.mark.parametrize(("preset", "card"), [("lora", 80e9), ("qlora", 24e9)])
def test_every_stage_of_a_loop_fits_the_card_of_its_preset(outline: tuple[str, Path], preset: str, card: float) -> None:
    """With 1,024 tokens and four responses to a prompt, as the preset says."""
    config = LoopConfig(preset=preset, compute={"device": "cuda"})
    for spec in loop_specs(outline[1], config).values():
        assert required_bytes(spec) <= card


def test_four_models_in_place_of_one_do_not_fit(outline: tuple[str, Path]) -> None:
    merged = SHARED.changed(merge=True)
    spec = stages(outline[1], merged)["PPO"]
    # Policy, which is the reference too, reward model and value model.
    shared = required_bytes(stages(outline[1], SHARED)["PPO"])
    adapters = model_sizes(outline[1]).adapter_parameters(SHARED)
    assert required_bytes(spec) - shared == 2 * 2 * PARAMETERS[outline[0]] - 2 * 4 * adapters
