"""The trainings that can be run, by name."""

from collections.abc import Callable
from typing import Any

from rlhf_dagster.training.runtime.resuming import Checkpointing
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, TinyModelSpec, TrainingResult

Train = Callable[[Any, Callable[..., None], Checkpointing], TrainingResult]

SPECS = {"tiny_model": TinyModelSpec, "sft": SftSpec, "reward_model": RewardModelSpec, "ppo": PpoSpec, "dpo": DpoSpec}


def _load_tiny_model() -> Train:
    from rlhf_dagster.training.pretraining.tiny_model import train_tiny_model

    return train_tiny_model


def _load_sft() -> Train:
    from rlhf_dagster.training.sft.train import train_sft

    return train_sft


def _load_reward_model() -> Train:
    from rlhf_dagster.training.reward.train import train_reward_model

    return train_reward_model


def _load_ppo() -> Train:
    from rlhf_dagster.training.ppo.train import train_ppo

    return train_ppo


def _load_dpo() -> Train:
    from rlhf_dagster.training.dpo.train import train_dpo

    return train_dpo


TRAININGS: dict[str, Callable[[], Train]] = {
    "tiny_model": _load_tiny_model,
    "sft": _load_sft,
    "reward_model": _load_reward_model,
    "ppo": _load_ppo,
    "dpo": _load_dpo,
}
"""What imports the function of each training, and torch with it."""


def train_here(stage: str, spec: Any, progress: Callable[..., None], checkpointing: Checkpointing) -> TrainingResult:
    """Call the stage's training function in this process."""
    return TRAININGS[stage]()(spec, progress, checkpointing)
