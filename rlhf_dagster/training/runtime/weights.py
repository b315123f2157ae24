"""The tensors that a training changes, under the names that they have in the module: what its states hold.

A checkpoint for other programs (`save_pretrained`) is no state: for many architectures it has other names, shapes and
numbers of tensors, such as one for each expert, and what opens one by name loses what it does not find.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from rlhf_dagster.training.runtime.sharding.tensors import sharded_like

STATE_WEIGHTS = "weights.pt"


def changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trained parameters and buffers of ``model`` by name, not copied; tensors that have several names once.

    The rest is what the training began with. Buffers that a module does not save (such as tables of positions) are made
    from its config.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    saved = model.state_dict()
    return trained | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def write_weights(model: nn.Module, folder: Path) -> None:
    torch.save({name: tensor.detach() for name, tensor in changing_tensors(model).items()}, folder / STATE_WEIGHTS)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors on the CPU, read from the disk where they are used; no code of the file runs."""
    return torch.load(folder / STATE_WEIGHTS, map_location="cpu", weights_only=True, mmap=True)


def misfit(own: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> str:
    """Why ``kept`` are not values of the tensors ``own``, for a sentence; empty where they are."""
    for name in own.keys() | kept.keys():
        if name not in kept:
            return f"it lacks {name}"
        if name not in own:
            return f"it has {name}, which the model has not"
        if kept[name].shape != own[name].shape or kept[name].dtype != own[name].dtype:
            return f"{name} has another shape or type than in the model"
    return ""


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Give the tensors ``own`` the values ``kept``, in place; raises RuntimeError where they are not the same ones."""
    if why := misfit(own, kept):
        raise RuntimeError(f"The state is not one of this model: {why}.")
    for name, tensor in own.items():
        tensor.copy_(sharded_like(kept[name], tensor))
