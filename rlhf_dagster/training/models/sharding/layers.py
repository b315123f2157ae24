"""Cutting a model into parts: a group of weights for each layer, and one for what stands around the layers."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.low_precision.quantised import QuantisedLinear
from rlhf_dagster.training.models.passes.layer_lists import layer_list
from rlhf_dagster.training.models.passes.logit_pieces import plain_model
from rlhf_dagster.training.models.sharding.check import NumbersBefore
from rlhf_dagster.training.models.sharding.weights import STAYS_WHOLE
from rlhf_dagster.training.runtime.distributed import world
from rlhf_dagster.training.runtime.sharding.tensors import ranks_mesh

Check = Callable[[], None]
"""What all ranks do together once each has cut a model; raises UserError on all of them where it is not the same."""


def shard_model(model: nn.Module, device: torch.device, mean: bool) -> Check:
    """Cut ``model``, which is whole and may have adapters, in place; returns the check that is to follow.

    Args:
        model: a causal language model or a sequence scorer, whose trunk and head are then called apart.
        device: where its parts go, a layer at a time.
        mean: whether gradients are averaged over ranks, as DDP does, instead of summed.

    Raises UserError where it cannot be cut.
    """
    plain = plain_model(model)
    found = layer_list(plain)
    if found is None:
        raise _refused(plain, "no list of layers runs once from first to last")
    if any(isinstance(part, QuantisedLinear) for part in plain.modules()):
        raise _refused(plain, "its weights are codes of `lora.base_bits`")
    if shared := _shared_by_layers(plain, found[1]):
        raise _refused(plain, f"several layers share {shared}")
    roots = _roots(plain)
    before = NumbersBefore(plain, roots[0], found[1])
    _own_parameters(plain)
    for layer in found[1]:
        _cut(layer, device, mean)
    # A head is called again on states from inside a pass, so that it stays whole behind it.
    stays_whole = plain.get_output_embeddings() is not None or before.trains
    for root in roots:
        _cut(root, device, mean, stays_whole)
    return lambda: _compare(before, mean)


def shard_module(module: nn.Module, device: torch.device, mean: bool) -> None:
    """Cut a small ``module`` that is called by itself, such as a value head, in place."""
    _cut(module, device, mean, stays_whole=True)


def _roots(plain: PreTrainedModel) -> list[nn.Module]:
    """The outermost modules that are called: a language model, or a scorer's trunk and its head."""
    if plain.get_output_embeddings() is not None:
        return [plain]
    return [plain.base_model, cast("nn.Module", plain.score)]


def _shared_by_layers(plain: nn.Module, layers: nn.ModuleList) -> str:
    """The name of a weight that several layers have, and would each cut; empty where there is none."""
    names = {id(weight): name for name, weight in plain.named_parameters()}
    having = Counter(id(weight) for layer in layers for weight in layer.parameters())
    return next((names[weight] for weight, count in having.items() if count > 1), "")


def _compare(before: NumbersBefore, mean: bool) -> None:
    if why := before.difference(1 if mean else world()):
        raise _refused(before.model, why)


def _own_parameters(model: nn.Module) -> None:
    """Give ``model`` parameters of its own in the same memory: to cut one moves it, also for others that hold it."""
    own: dict[int, nn.Parameter] = {}
    for name, weight in list(model.named_parameters(remove_duplicate=False)):
        place, _, leaf = name.rpartition(".")
        made = own.setdefault(id(weight), nn.Parameter(weight.detach(), requires_grad=weight.requires_grad))
        model.get_submodule(place)._parameters[leaf] = made


def _cut(module: nn.Module, device: torch.device, mean: bool, stays_whole: bool = False) -> None:
    """Have FSDP2 manage the weights of ``module`` that are not cut yet; whether they stay whole after a pass."""
    from torch.distributed.fsdp import fully_shard

    # Gradients are compared below, which says more than that an in-place operation would lose them.
    warnings.filterwarnings("ignore", ".*FSDP2-wrapped module .* returned a view tensor", UserWarning)
    name = type(module).__name__
    sharded = fully_shard(module, mesh=ranks_mesh(device.type), reshard_after_forward=not stays_whole)
    type(sharded).__name__ = name  # as sentences and config.json call it
    setattr(sharded, STAYS_WHOLE, stays_whole)
    if not mean:
        sharded.set_gradient_divide_factor(1.0)
    # Gloo knows sums alone.
    sharded.set_force_sum_reduction_for_comms(True)


def _refused(model: Any, why: str) -> UserError:
    return UserError(f"{type(model).__name__} cannot be sharded ({why}); set compute.sharding to none.")
