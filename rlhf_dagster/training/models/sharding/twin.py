"""Plain copies of modules that are sharded: without numbers, until they are put together for a checkpoint."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_dagster.training.models.sharding.weights import reshard
from rlhf_dagster.training.runtime.distributed import is_main
from rlhf_dagster.training.runtime.sharding.tensors import full_tensor


class PlainTwin:
    """A copy of several modules, made before they are sharded, that takes no memory for their weights.

    Modules that share weights, or contain each other, do so in the copy.
    """

    def __init__(self, *modules: nn.Module) -> None:
        """Must be made before ``modules`` are sharded."""
        meta = {
            id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
            for module in modules
            for weight in module.parameters()
        }
        self._modules = modules
        shared = {id(part): part for module in modules for part in _not_of_weights(module)}
        self._copies = copy.deepcopy(modules, {**meta, **shared})

    def put_together(self) -> tuple[nn.Module, ...]:
        """The copies; on the main rank with the weights of now, on the CPU. Every rank must call it.

        One tensor at a time is whole on other ranks.
        """
        reshard(*self._modules)
        # Weights are told apart by where they are in memory, so none may go before all are done.
        places = [place for pair in zip(self._modules, self._copies, strict=True) for place in _places(*pair)]
        made: dict[int, nn.Parameter] = {}
        for owner, leaf, weight, twin in places:
            if id(twin) not in made:
                made[id(twin)] = _on_main(weight.detach(), twin)
            owner._parameters[leaf] = made[id(twin)]
        return self._copies


def _not_of_weights(module: nn.Module) -> list[Any]:
    """What a model and its copy are to have in common: what becomes of it holds for both."""
    names = ("config", "generation_config", "abilities")
    found = [getattr(part, name, None) for part in module.modules() for name in names]
    return [part for part in found if part is not None]


def _places(module: nn.Module, twin: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor, nn.Parameter]]:
    """Where ``twin`` has a weight: the submodule, the name there, the weight in ``module``, and that of the twin."""
    weights = dict(module.named_parameters(remove_duplicate=False))
    for name, weight in twin.named_parameters(remove_duplicate=False):
        place, _, leaf = name.rpartition(".")
        yield twin.get_submodule(place), leaf, weights[name], weight


def _on_main(weight: Tensor, twin: nn.Parameter) -> nn.Parameter:
    whole = full_tensor(weight)
    return nn.Parameter(whole.cpu(), requires_grad=twin.requires_grad) if is_main() else twin
