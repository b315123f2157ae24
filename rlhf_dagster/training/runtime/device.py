"""Threads, devices, precision, and the ranks that train together."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.distributed import join, local_rank, world
from rlhf_dagster.training.runtime.freeing import release_memory, return_what_is_freed
from rlhf_dagster.training.runtime.optimizers import require_optimizer


def use_device(compute: ComputeSettings) -> torch.device:
    """Cap PyTorch's threads and return the device; raises UserError where CUDA is asked for and absent.

    More threads than free cores make small models many times slower: OMP_NUM_THREADS and the core count lower the cap.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(limit) if limit.isdigit() and int(limit) > 0 else os.cpu_count() or 1
    torch.set_num_threads(min(compute.threads, cores))
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is `cuda` but PyTorch finds no CUDA device; set it to `auto` or `cpu`.")
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"compute.processes needs a GPU for each process but there are {torch.cuda.device_count()}; lower it."
        )
    torch.cuda.set_device(local_rank())
    return torch.device("cuda", local_rank())


def precision(compute: ComputeSettings | None) -> AbstractContextManager[object]:
    """Matrix products in bfloat16 where `precision` is `bf16`; weights, log-probs and losses stay in float32.

    The bfloat16 copies of weights are not cached, because weights change inside the context. With None or `fp32` the
    surrounding precision stays as it is.
    """
    if compute is None or compute.precision == "fp32":
        return nullcontext()
    return torch.autocast(use_device(compute).type, dtype=torch.bfloat16, cache_enabled=False)


@contextmanager
def training_on(compute: ComputeSettings) -> Iterator[torch.device]:
    """Join the other ranks, and run the block in the precision of ``compute``; gives the device.

    What the block leaves in circles is freed at its end, before the next stage of this process. Checkpointing asks for
    memory before time: the processor's is then given back as soon as it is free.
    """
    require_optimizer(compute)
    device = use_device(compute)
    if compute.gradient_checkpointing and device.type == "cpu":
        return_what_is_freed()
    join(device)
    try:
        with precision(compute):
            yield device
    finally:
        release_memory()


def require_a_row_for_each_rank(rows: int, what: str) -> None:
    """Raise UserError where a batch is smaller than the number of ranks; ``what`` names it and its setting."""
    if rows < world():
        raise UserError(f"{what} has {rows} rows for {world()} processes; raise it or lower compute.processes.")
