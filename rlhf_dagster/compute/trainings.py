"""The table of trainings: what can be known of each without importing torch, and how to load its function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.dpo.memory import dpo_memory
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.ppo.memory import ppo_rollout_memory, ppo_update_memory
from rlhf_dagster.training.pretraining.memory import pretraining_memory
from rlhf_dagster.training.reward.memory import normalisation_memory, reward_model_memory
from rlhf_dagster.training.runtime.resuming import Checkpointing
from rlhf_dagster.training.sft.memory import sft_memory
from rlhf_dagster.training.specs import (
    DpoSpec,
    OnStep,
    PpoSpec,
    RewardModelSpec,
    SftSpec,
    Spec,
    TinyModelSpec,
    TrainingResult,
)

Train = Callable[[Any, OnStep, Checkpointing], TrainingResult]


@dataclass(frozen=True)
class Training:
    """A training that can be run, by itself or as a stage of a loop."""

    name: str
    """In `rlhf train NAME`, and in requests to a training process."""
    spec: type[Spec]
    load: Callable[[], Train]
    """Imports the training's function, and torch with it."""
    title: str
    """The training's name at the beginning of a sentence."""
    learning_memory: Callable[[Any], Parts]
    """The parts of the memory that a spec's training takes at most while it learns, beside its process."""
    remedy: str
    """How settings lower its peak; what changes the result least comes first."""
    drawing_memory: Callable[[Any], Parts] = lambda spec: Parts()
    """And while it draws responses; nothing where it draws none."""

    def peak_memory(self, spec: Any) -> Parts:
        """The parts of the memory that a spec's training takes at most, beside its process."""
        return largest(self.learning_memory(spec), self.drawing_memory(spec))


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


_ROWS = (
    Training(
        name="tiny_model",
        spec=TinyModelSpec,
        load=_load_tiny_model,
        title="Pretraining",
        learning_memory=pretraining_memory,
        remedy="lower base_model.tiny.batch_size",
    ),
    Training(
        name="sft",
        spec=SftSpec,
        load=_load_sft,
        title="SFT",
        learning_memory=sft_memory,
        remedy="raise sft.accumulate, lower sft.max_tokens",
    ),
    Training(
        name="reward_model",
        spec=RewardModelSpec,
        load=_load_reward_model,
        title="Reward-model training",
        learning_memory=reward_model_memory,
        drawing_memory=normalisation_memory,
        remedy="raise reward_model.accumulate, lower reward_model.max_tokens or sampling.batch_size",
    ),
    Training(
        name="ppo",
        spec=PpoSpec,
        load=_load_ppo,
        title="PPO",
        learning_memory=ppo_update_memory,
        drawing_memory=ppo_rollout_memory,
        remedy="raise ppo.accumulate, lower ppo.batch_size or sampling.response_tokens",
    ),
    Training(
        name="dpo",
        spec=DpoSpec,
        load=_load_dpo,
        title="DPO",
        learning_memory=dpo_memory,
        remedy="raise dpo.accumulate, lower sampling.batch_size or sampling.response_tokens",
    ),
)
TRAININGS = {row.name: row for row in _ROWS}


def find_training(name: str) -> Training:
    """The row of that name; raises UserError with all names where there is none."""
    if name not in TRAININGS:
        raise UserError(f"{name} is no stage; choose one of {', '.join(TRAININGS)}.")
    return TRAININGS[name]


def training_of(spec: Spec) -> Training:
    """The row whose spec this is."""
    return next(row for row in _ROWS if isinstance(spec, row.spec))


def train_here(stage: str, spec: Spec, progress: OnStep, checkpointing: Checkpointing) -> TrainingResult:
    """Call the stage's training function in this process."""
    return TRAININGS[stage].load()(spec, progress, checkpointing)
