"""Layers that policy and reference share because neither is trained: computed once for both.

Like the "hydra" models of trlX, without their copies of model code: the frozen layers are the model's own, their output
is recorded once, and in later forward passes they return the record instead of computing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.reading import reading_of


@dataclass(frozen=True)
class Frozen:
    """The lowest layers of a model, and where in what they return the states are."""

    layers: str
    """The name of the list of layers in the model."""
    count: int
    kind: type | None
    """What a layer returns: a tuple or a list; None where it is the states alone."""
    parts: int
    place: int
    """Which of so many parts of that are the states."""
    batch_dim: int
    """Which dimension of the states counts the rows of a batch: not the first in Gemma 3n."""

    def states_in(self, output: Any) -> Tensor:
        """The states, rows first, in what a layer has returned."""
        states = output if self.kind is None else output[self.place]
        return cast("Tensor", states.movedim(self.batch_dim, 0))

    def output_with(self, states: Tensor) -> Any:
        """What a layer would have returned with these states."""
        states = states.movedim(0, self.batch_dim)
        if self.kind is None:
            return states
        return self.kind(states if part == self.place else None for part in range(self.parts))


def frozen_of(model: PreTrainedModel) -> Frozen | None:
    """What of ``model`` is frozen; None where all of it is trained."""
    return cast("Frozen | None", getattr(model, "frozen_layers", None))


def share_frozen(model: PreTrainedModel, reference: PreTrainedModel) -> None:
    """Let ``reference`` use the frozen weights of ``model`` instead of its own, which are the same numbers.

    Raises UserError where the numbers differ.
    """
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            continue
        place, _, leaf = name.rpartition(".")
        owner = reference.get_submodule(place)
        if not torch.equal(getattr(owner, leaf), parameter):
            raise UserError(
                "ppo.frozen_layers: the start's lower layers are not those of SFT; "
                "set `ppo.start: sft`, or ppo.frozen_layers to 0."
            )
        setattr(owner, leaf, parameter)
    reference.frozen_layers = frozen_of(model)  # type: ignore[assignment]


@contextmanager
def recorded(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """A list to which each forward pass adds the states [B, ...] above the frozen layers; empty if none are frozen."""
    states: list[Tensor] = []
    if (frozen := frozen_of(model)) is None:
        yield states
        return
    reading_of(model)  # which runs the model, if nobody has asked yet

    def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
        # Cloned, as a later layer may add to them in place.
        states.append(frozen.states_in(output).detach().clone())

    hook = _layers(model, frozen)[-1].register_forward_hook(keep)
    try:
        yield states
    finally:
        hook.remove()


@contextmanager
def replayed(model: PreTrainedModel, states: Tensor | None) -> Iterator[None]:
    """The frozen layers give ``states`` [B, ...] without computing anything; with None they compute."""
    if states is None or (frozen := frozen_of(model)) is None:
        yield
        return
    layers, output = _layers(model, frozen), frozen.output_with(states)
    for layer in layers:
        layer.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _layers(model: PreTrainedModel, frozen: Frozen) -> list[nn.Module]:
    return list(cast("nn.ModuleList", model.get_submodule(frozen.layers)))[: frozen.count]
