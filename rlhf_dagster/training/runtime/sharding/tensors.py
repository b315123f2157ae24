"""Tensors of which each rank holds a part (PyTorch's DTensor), as FSDP2 cuts them: along their first dimension.

Functions that are called with plain tensors too do not import what only sharding needs.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.distributed import is_sharded, world


def shards(compute: ComputeSettings) -> bool:
    """Whether this training holds its models in parts; with one rank there is nothing to divide.

    Raises UserError where nobody has settled what `auto` means: ranks that each look at the free memory may disagree.
    """
    if compute.sharding == "auto" and world() > 1:
        raise UserError("compute.sharding is auto, which is settled before ranks start; give them full or none.")
    return compute.sharding == "full" and world() > 1


def own_part(tensor: Tensor) -> Tensor:
    """This rank's part of ``tensor``, in the same memory; a plain tensor as it is."""
    return cast("Any", tensor).to_local() if is_sharded(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All of ``tensor``, which every rank must ask for; a plain tensor as it is."""
    return cast("Any", tensor).full_tensor() if is_sharded(tensor) else tensor


def sharded_like(tensor: Tensor, own: Tensor) -> Tensor:
    """``tensor``, which every rank has, cut as ``own`` is; as it is where that is a plain tensor, or it is cut already.

    Nothing is exchanged.
    """
    if not is_sharded(own) or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded = cast("Any", own)
    device = sharded.device_mesh.device_type
    # Each rank copies its part, so that no rank holds on to the whole.
    cut = distribute_tensor(tensor, sharded.device_mesh, sharded.placements, src_data_rank=None)
    return cut.clone().to(device)


def states_like(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The ``state`` of an optimiser, of whole weights or of parts, with tensors cut as those that it has now."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if not any(map(is_sharded, weights)):
        return state
    return state | {"state": {number: _cut(kept, weights[number]) for number, kept in state["state"].items()}}


def _cut(kept: dict[str, Any], weight: Tensor) -> dict[str, Any]:
    """What an optimiser keeps of one weight; a count of its steps has another shape."""
    return {
        name: sharded_like(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value
        for name, value in kept.items()
    }


def empty_sharded(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of this ``shape`` without numbers, of which each rank has a part."""
    from torch.distributed.tensor import Shard, empty

    return empty(*shape, dtype=dtype, device_mesh=ranks_mesh(device.type), placements=[Shard(0)])


@cache
def ranks_mesh(device_type: str) -> Any:
    """All ranks in a row; made by all of them together."""
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device_type, (world(),))
