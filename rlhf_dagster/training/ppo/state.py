"""An unfinished PPO run: everything that its next update depends on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlhf_dagster.training.ppo.kl_penalty import KlController
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.ppo.rollout import Rollout
from rlhf_dagster.training.runtime.seeding import random_state, restore_random_state
from rlhf_dagster.training.runtime.sharding.tensors import sharded_like, states_like
from rlhf_dagster.training.runtime.weight_average import WeightAverage
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
    average: WeightAverage | None = None
    """The average that the checkpoint is to hold; None where it holds the weights themselves."""
    ahead: Rollout | None = None
    """The next update's episodes, where they are drawn one update ahead (`rollouts_ahead: 1`)."""

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

    def average_weights(self) -> None:
        """Let the average take in the weights of the update that has just been made."""
        if self.average is not None:
            self.average.add(self.weights())

    @contextmanager
    def weights_to_keep(self) -> Iterator[None]:
        """While the block runs, the policy has the weights that its checkpoint would have now."""
        if self.average is None:
            yield
            return
        trained = {name: weight.clone() for name, weight in self.weights().items()}
        self.take_weights(self.average.like(trained))
        try:
            yield
        finally:
            self.take_weights(trained)

    @contextmanager
    def having(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """While the block runs, the policy has copies of its trained ``weights`` of another time, which have its own
        meanwhile; one tensor more is held at a time."""
        self._exchange(weights)
        try:
            yield
        finally:
            self._exchange(weights)

    def _exchange(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.weights().items():
            own = weight.clone()
            weight.copy_(weights[name])
            weights[name].copy_(own)

    def finish(self) -> None:
        """Give the policy the weights of its checkpoint: the best by validation, the average, or its own."""
        if self.kept:
            self.take_weights(self.kept)
        elif self.average is not None:
            self.take_weights(self.average.like(self.weights()))

    def misfit(self, state: dict[str, Any]) -> str:
        """Why this run cannot go on from what :meth:`state_dict` gave, for a sentence; empty where it can."""
        pairs = [(self.weights(), state["policy"])]
        pairs += [(self.weights(), state["kept"])] if state["kept"] else []
        pairs += [(self.average.weights, state.get("average", {}))] if self.average is not None else []
        return next(filter(None, (misfit(own, kept) for own, kept in pairs)), "")

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "controller": self.controller.state_dict(),
            "generator": self.generator.get_state(),
            "waiting": self.prompts.waiting,
            "curves": self.curves,
            "kept": self.kept,
            "average": {} if self.average is None else self.average.weights,
            "random": random_state(),
        } | ({} if self.ahead is None else {"ahead": self.ahead.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.take_weights(state["policy"])
        self.optimizer.load_state_dict(states_like(state["optimizer"], self.optimizer))
        self.controller.load_state_dict(state["controller"])
        self.generator.set_state(state["generator"])
        self.prompts.waiting = state["waiting"]
        self.curves, own = state["curves"], self.weights()
        self.kept = {name: sharded_like(weight, own[name]) for name, weight in state["kept"].items()}
        if self.average is not None:
            copy_into(self.average.weights, state["average"])
        if "ahead" in state:
            self.ahead = Rollout.of_state(state["ahead"], self.policy.model.device)
        restore_random_state(state["random"])
