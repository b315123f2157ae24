"""Presets by size, and what is left to the toy's settings."""

import pytest

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.model_sizes import in_millions, preset_for
from rlhf_dagster.config.presets import PRESETS, TINY
from rlhf_dagster.config.training import ComputeSettings

ALL = [
    "sampling.prompt_tokens",
    "sampling.response_tokens",
    "sampling.fixed_length",
    "sft.learning_rate",
    "sft.max_tokens",
    "reward_model.learning_rate",
    "reward_model.max_tokens",
    "ppo.learning_rate",
]


@pytest.mark.parametrize(
    ("parameters", "preset"),
    [
        (134_515_008, "small"),
        (1_235_814_400, "small"),
        (1_711_376_384, "lora"),
        (14_770_033_664, "lora"),
        (7e10, "qlora"),
    ],
)
def test_each_size_has_its_preset(parameters: int, preset: str) -> None:
    assert preset_for(parameters) == preset
    assert preset in PRESETS


def test_nothing_is_left_to_the_toy_by_another_preset() -> None:
    for preset in PRESETS:
        assert LoopConfig(preset=preset).left_to_the_toy() == (ALL if preset == "tiny" else [])


def test_what_somebody_sets_is_theirs_even_to_the_toys_value() -> None:
    own = {"sft": {"learning_rate": 5e-4}, "sampling": {"prompt_tokens": 256, "response_tokens": 256}}
    left = LoopConfig.parse(own, "f").left_to_the_toy()
    assert left == [name for name in ALL if name not in ("sft.learning_rate", *ALL[:2])]
    assert LoopConfig.parse({"preset": "tiny"}, "f").left_to_the_toy() == ALL
    assert LoopConfig.parse({"sft": None, "arms": ["dpo"]}, "f").left_to_the_toy() == [*ALL, "dpo.learning_rate"]


def test_a_changed_copy_knows_what_was_set() -> None:
    config = LoopConfig.parse({"sft": {"learning_rate": 1e-5}}, "f").changed(compute=ComputeSettings(threads=1))
    assert config.left_to_the_toy() == [name for name in ALL if name != "sft.learning_rate"]
    assert config == LoopConfig.parse({"sft": {"learning_rate": 1e-5}, "compute": {"threads": 1}}, "f")


def test_the_toys_settings_are_the_defaults() -> None:
    for settings in TINY.values():
        assert settings == type(settings)()


def test_sizes_are_said_as_people_say_them() -> None:
    assert in_millions(134_515_008) == "135 million"
    assert in_millions(7_241_732_096) == "7.24 billion"
