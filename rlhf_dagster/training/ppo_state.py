"""An unfinished PPO run: everything that its next update depends on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rlhf_dagster.training.kl import KlController
from rlhf_dagster.training.ppo_policy import PolicyWithValue
from rlhf_dagster.training.seeding import random_state, restore_random_state
from rlhf_dagster.training.tokens import TokenIds


class PromptOrder:
    """Batches of prompts without end: every prompt once in a random order, then again in another."""

    def __init__(self, prompts: Sequence[TokenIds], generator: torch.Generator) -> None:
        self.prompts, self.generator = prompts, generator
        self.waiting: list[int] = []
        """Indices of the prompts whose turn comes next."""

    def take(self, size: int) -> list[TokenIds]:
        while len(self.waiting) < size:
            self.waiting += torch.randperm(len(self.prompts), generator=self.generator).tolist()
        batch, self.waiting = self.waiting[:size], self.waiting[size:]
        return [self.prompts[index] for index in batch]


@dataclass
class PpoRun:
    """What an update reads and changes."""

    policy: PolicyWithValue
    optimizer: torch.optim.Optimizer
    controller: KlController
    generator: torch.Generator
    """Of the prompts' order, of sampling, of the minibatches and of pretraining text."""
    prompts: PromptOrder
    curves: dict[str, list[float]] = field(default_factory=dict)
    """One value for each finished update."""

    @property
    def updates(self) -> int:
        """How many are finished."""
        return max(map(len, self.curves.values()), default=0)

    def record(self, numbers: dict[str, float]) -> None:
        for name, number in numbers.items():
            self.curves.setdefault(name, []).append(number)

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "controller": self.controller.state_dict(),
            "generator": self.generator.get_state(),
            "waiting": self.prompts.waiting,
            "curves": self.curves,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.controller.load_state_dict(state["controller"])
        self.generator.set_state(state["generator"])
        self.prompts.waiting = state["waiting"]
        self.curves = state["curves"]
        restore_random_state(state["random"])
