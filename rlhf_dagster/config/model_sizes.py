"""Which settings suit a model of a size: those of the toy are refused for a real one."""

from collections.abc import Mapping

from rlhf_dagster.config.base import Settings

TOY_PARAMETERS = 10_000_000
"""Parameters up to which the preset `tiny`, which is for one million, is taken as it is."""
_LARGEST = {"small": 1_500_000_000, "lora": 16_000_000_000}
"""Parameters up to which each preset is advised: what is sold as `1B` and `14B` has up to so many."""
_OF_THE_TOY: Mapping[str, tuple[str, ...]] = {
    "sampling": ("prompt_tokens", "response_tokens", "fixed_length"),
    "sft": ("learning_rate", "max_tokens"),
    "reward_model": ("learning_rate", "max_tokens"),
    "ppo": ("learning_rate",),
    "dpo": ("learning_rate",),
    "rloo": ("learning_rate",),
    "grpo": ("learning_rate",),
    "best_of_n_sft": ("learning_rate",),
}
"""Settings whose defaults are right for the embedded task and its model alone."""


def preset_for(parameters: int) -> str:
    """The preset for a pretrained model of so many parameters."""
    return next((preset for preset, largest in _LARGEST.items() if parameters <= largest), "qlora")


def left_to_the_toy(sections: Mapping[str, Settings]) -> list[str]:
    """The settings, as `section.name`, that nobody has set and that have the toy's values."""
    return [
        f"{section}.{name}"
        for section, settings in sections.items()
        for name in _OF_THE_TOY.get(section, ())
        if name not in settings.model_fields_set
    ]


def in_millions(parameters: int) -> str:
    """A number of parameters as people say it: `1.3 billion`, `135 million`."""
    if parameters >= 1_000_000_000:
        return f"{parameters / 1e9:.3g} billion"
    return f"{parameters / 1e6:.3g} million"
