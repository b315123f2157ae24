"""Several processes (ranks) that train one model: which one this is, and the exchanges that training needs.

Ranks are those of `torchrun` (RANK, WORLD_SIZE, LOCAL_RANK). In one process every function here is a no-op.
"""

import os
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlhf_dagster.errors import UserError

TEXT_BYTES = 4096
"""Longest text that is broadcast; the rest is cut."""
PATIENCE = timedelta(hours=2)
"""How long ranks wait for one that writes a state or a model."""


def join(device: torch.device) -> None:
    """Meet the other ranks where `torchrun` has started several. Ranks exchange by gloo on CPUs, by NCCL on GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)


def leave_group() -> None:
    """Part from the other ranks, as the last thing of a process: gloo's threads must not outlive the interpreter, which
    they may need for the tensors that they still hold."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_rank() -> int:
    """The number of this rank among those of this machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world() -> int:
    """How many ranks train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this rank reports progress, asks whether to stop, and writes."""
    return rank() == 0


def barrier() -> None:
    """Wait for all ranks, by gloo on every device: NCCL waits in a GPU kernel, which may not run for so long."""
    if world() > 1:
        dist.all_reduce(torch.zeros(1))


def is_sharded(tensor: Any) -> bool:
    """Whether a rank holds a part of ``tensor`` alone (:mod:`rlhf_dagster.training.runtime.sharding.tensors`)."""
    # Nobody has made one where its module was not imported.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def own_slice(count: int) -> slice:
    """This rank's part of ``count`` rows: contiguous, as even as can be; empty where there are too few for all."""
    return slice(count * rank() // world(), count * (rank() + 1) // world())


def gather_rows(own: Tensor, count: int) -> Tensor:
    """All ``count`` rows in order, on every rank, from the :func:`own_slice` of each rank; without gradients."""
    if world() == 1:
        return own
    sizes = [count * (r + 1) // world() - count * r // world() for r in range(world())]
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def sum_of_ranks(values: Tensor) -> Tensor:
    """The sum over ranks of ``values``, which have the same shape everywhere."""
    if world() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def largest_of_ranks(number: int) -> int:
    """The largest ``number`` of all ranks."""
    return int(gather_rows(torch.tensor([number]), world()).max())


def on_main(act: Callable[[], object]) -> None:
    """Call ``act`` on the main rank alone, while the others wait; what it raises there, every rank raises as UserError,
    and the main rank as it is."""
    failure: Exception | None = None
    if is_main():
        try:
            act()
        except Exception as error:  # said on all ranks, which would wait for hours
            failure = error
    said = broadcast_text("" if failure is None else str(failure) or type(failure).__name__)
    if failure is not None:
        raise failure
    if said:
        raise UserError(said)


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sum over ranks, in one exchange; those that are in parts are sums already."""
    if world() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    gradients = [gradient for gradient in gradients if not is_sharded(gradient)]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over ranks, but for those that are in parts, which are means already."""
    whole = [parameter for parameter in parameters if parameter.grad is not None and not is_sharded(parameter.grad)]
    sum_gradients(whole)
    for parameter in whole:
        cast("Tensor", parameter.grad).div_(world())


def broadcast_text(text: str) -> str:
    """The main rank's ``text``, on every rank."""
    if world() == 1:
        return text
    content = torch.zeros(TEXT_BYTES, dtype=torch.uint8)
    encoded = text.encode()[:TEXT_BYTES]
    content[: len(encoded)] = torch.frombuffer(bytearray(encoded) or bytearray(1), dtype=torch.uint8)[: len(encoded)]
    dist.broadcast(content, src=0)
    return bytes(content[content != 0].tolist()).decode(errors="ignore")


def first_text(own: str) -> str:
    """The text of the first rank whose ``own`` is not empty, on every rank."""
    if world() == 1:
        return own
    encoded = own.encode()[:TEXT_BYTES]
    content = torch.tensor(list(encoded) + [0] * (TEXT_BYTES - len(encoded)), dtype=torch.uint8)
    texts = (bytes(row[row != 0].tolist()).decode(errors="ignore") for row in gather_rows(content[None], world()))
    return next((text for text in texts if text), "")
