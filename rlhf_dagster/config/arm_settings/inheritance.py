"""What an arm's settings take over, where nobody has set them, from those of the training that it is a variant of."""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.config.base import Settings, overlaid
from rlhf_dagster.config.training import PpoSettings

OF_VALUES = ("gamma", "gae_lambda", "value", "value_coef", "value_clip_range")
"""Settings of PPO that only mean something where it has values."""
_OF_PPO = tuple(
    name for name in PpoSettings.model_fields if name not in (*OF_VALUES, "advantages", "samples_per_prompt")
)
_OF_SFT = ("batch_size", "learning_rate", "schedule", "accumulate", "lora")
TAKEN_OVER: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "rloo": ("ppo", _OF_PPO),
    "grpo": ("ppo", _OF_PPO),
    "best_of_n_sft": ("sft", _OF_SFT),
}
"""By arm: the section whose settings it takes over, and their names."""


def with_inherited(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a config in which the arms that it asks for have what they take over."""
    asked = _asked(values)
    return values | {arm: _inherited(values, arm) for arm in TAKEN_OVER if arm in asked}


def _inherited(values: Mapping[str, Any], arm: str) -> Any:
    """An arm's settings; what is none is left as it is, for the sentence that refuses it."""
    section, names = TAKEN_OVER[arm]
    own, others = _set(values.get(arm)), _set(values.get(section))
    if not isinstance(own, dict) or not isinstance(others, dict):
        return values.get(arm, {})
    return overlaid({name: others[name] for name in names if name in others}, own)


def _set(given: Any) -> Any:
    """What is set of settings, as a mapping."""
    return given.model_dump(exclude_unset=True) if isinstance(given, Settings) else {} if given is None else given


def _asked(values: Mapping[str, Any]) -> list[Any]:
    """The arms that a config names, whether there are such or not."""
    arms, release = values.get("arms"), _set(values.get("release"))
    released = [release.get("arm")] if isinstance(release, dict) else []
    return [*(arms if isinstance(arms, list) else []), *released]
