"""An unfinished PPO run: everything that its next update depends on."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlhf_dagster.training.ppo.kl_penalty import KlController
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.runtime.seeding import random_state, restore_random_state
from rlhf_dagster.training.runtime.weights import copy_into, misfit


class PromptOrder:
    """Batches of prompts without end: every prompt once in a random order, then again in another."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.waiting: list[int] = []
        """Indices of the prompts whose turn comes next."""

    def take(self, size: int) -> list[int]:
        """Indices of the next ``size`` prompts."""
        while len(self.waiting) < size:
            self.waiting += torch.randperm(self.count, generator=self.generator).tolist()
        batch, self.waiting = self.waiting[:size], self.waiting[size:]
        return batch


@dataclass
class PpoRun:
    """What an update reads and changes."""

    policy: PpoPolicy
    optimizer: torch.optim.Optimizer
    controller: KlController
    generator: torch.Generator
    """Draws the prompts' order, the responses, the minibatches and the pretraining text."""
    prompts: PromptOrder
    curves: dict[str, list[float]] = field(default_factory=dict)
    """One value for each finished update; curves of validation have one for each validation."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """The trained weights that validation has found best so far; empty where the last are kept."""

    @property
    def updates(self) -> int:
        """How many updates are finished."""
        return len(self.curves.get("reward", ()))

    def record(self, numbers: dict[str, float]) -> None:
        for name, number in numbers.items():
            self.curves.setdefault(name, []).append(number)

    def weights(self) -> dict[str, Tensor]:
        """The trained weights, not copied; frozen weights need no state, since they are read from the start."""
        return {name: parameter.detach() for name, parameter in self.policy.trained().items()}

    def take_weights(self, weights: dict[str, Tensor]) -> None:
        """Copy into the policy the weights that :meth:`weights` gave at another time."""
        copy_into(self.weights(), weights)

    def misfit(self, state: dict[str, Any]) -> str:
        """Why this run cannot go on from what :meth:`state_dict` gave, for a sentence; empty where it can."""
        kept = state["kept"] and misfit(self.weights(), state["kept"])
        return misfit(self.weights(), state["policy"]) or kept or ""

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "controller": self.controller.state_dict(),
            "generator": self.generator.get_state(),
            "waiting": self.prompts.waiting,
            "curves": self.curves,
            "kept": self.kept,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.take_weights(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.controller.load_state_dict(state["controller"])
        self.generator.set_state(state["generator"])
        self.prompts.waiting = state["waiting"]
        self.curves, self.kept = state["curves"], state["kept"]
        restore_random_state(state["random"])
