"""Layers that policy and reference share because neither is trained: computed once for both.

Like the "hydra" models of trlX, without their copies of model code: the frozen layers are the model's own, their output
is recorded once, and in later forward passes they return the record instead of computing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The list of a model's decoder layers; raises UserError where it has none."""
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise UserError(f"{type(model).__name__} has no list of {count} layers; set ppo.frozen_layers to 0.")


def freeze_layers(model: PreTrainedModel, count: int) -> None:
    """Train only the layers from number ``count`` on and what is behind them, such as the final norm.

    An output head that shares its weights with the embeddings is frozen with them. Raises UserError where no layer
    would be left.
    """
    layers = decoder_layers(model)
    if count >= len(layers):
        raise UserError(f"ppo.frozen_layers is {count} but the model has {len(layers)} layers; lower it.")
    for module in _modules_before(model, layers):
        module.requires_grad_(False)
    for layer in layers[:count]:
        layer.requires_grad_(False)
    model.frozen_layers = count  # type: ignore[assignment]


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
    reference.frozen_layers = frozen_count(model)  # type: ignore[assignment]


def frozen_count(model: PreTrainedModel) -> int:
    """How many of the lowest layers :func:`freeze_layers` has frozen."""
    return getattr(model, "frozen_layers", 0)


@contextmanager
def recorded(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """A list to which each forward pass adds the states [B, L, d] above the frozen layers; empty if none are frozen."""
    states: list[Tensor] = []
    if not frozen_count(model):
        yield states
        return
    last = decoder_layers(model)[frozen_count(model) - 1]
    hook = last.register_forward_hook(lambda module, inputs, output: states.append(_states(output).detach()))
    try:
        yield states
    finally:
        hook.remove()


@contextmanager
def replayed(model: PreTrainedModel, states: Tensor | None) -> Iterator[None]:
    """The frozen layers give ``states`` [B, L, d] without computing anything; with None they compute."""
    if states is None:
        yield
        return
    frozen = list(decoder_layers(model)[: frozen_count(model)])
    for layer in frozen:
        layer.forward = lambda *args, **kwargs: states
    try:
        yield
    finally:
        for layer in frozen:
            del layer.forward


def _states(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _modules_before(model: PreTrainedModel, layers: nn.ModuleList) -> list[nn.Module]:
    """What stands before the layers in the module that holds them: embeddings of tokens and of positions."""
    parent = next(module for module in model.modules() if any(child is layers for child in module.children()))
    children = list(parent.children())
    return children[: next(index for index, child in enumerate(children) if child is layers)]
