"""Opening the models of a training that is sharded: one rank of a machine after the other holds them whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.models.sharding.layers import Check, shard_model, shard_module
from rlhf_dagster.training.models.sharding.twin import PlainTwin
from rlhf_dagster.training.runtime.device import use_device
from rlhf_dagster.training.runtime.distributed import barrier, largest_of_ranks, local_rank, world
from rlhf_dagster.training.runtime.sharding.tensors import ranks_mesh


class Sharding:
    """Cuts the models of a training that is sharded; does nothing in any other."""

    def __init__(self, compute: ComputeSettings, wanted: bool, mean: bool) -> None:
        self.wanted = wanted
        self.opening = compute.changed(device="cpu") if wanted else compute
        """Where models are opened: beside the device, as one need not fit on it whole."""
        self._mean = mean
        self._device = use_device(compute)
        self._checks: list[Check] = []

    def shard(self, *models: PreTrainedModel) -> None:
        """Cut language models and scorers, with their adapters, in place."""
        if self.wanted:
            self._checks += [shard_model(model, self._device, self._mean) for model in models]

    def shard_read(self, model: PreTrainedModel | None) -> None:
        """Cut a model that is only read, where there is one."""
        if self.wanted and model is not None:
            self.shard(model.requires_grad_(False))

    def shard_head(self, head: nn.Module | None) -> None:
        """Cut a module that is called by itself."""
        if self.wanted and head is not None:
            shard_module(head, self._device, self._mean)

    def twin(self, *modules: nn.Module) -> PlainTwin | None:
        """A plain copy of ``modules``, which are whole yet, for their checkpoint; None where they stay whole."""
        return PlainTwin(*modules) if self.wanted else None

    def check(self) -> None:
        """Raise UserError, on all ranks, where a model does not compute in parts what it did before."""
        while self._checks:
            self._checks.pop(0)()


@contextmanager
def sharding_models(compute: ComputeSettings, wanted: bool, mean: bool = False) -> Iterator[Sharding]:
    """Models are opened and, where ``wanted``, sharded in this block, by one rank of a machine after the other.

    So no machine holds more than one whole copy. In the block ranks exchange nothing. ``mean``: whether gradients
    become those of the mean over ranks, as with DDP, and not of the sum.
    """
    sharding = Sharding(compute, wanted, mean)
    if not wanted:
        yield sharding
        return
    ranks_mesh(use_device(compute).type)
    with _in_turn():
        yield sharding
    sharding.check()


@contextmanager
def _in_turn() -> Iterator[None]:
    turns = largest_of_ranks(int(os.environ.get("LOCAL_WORLD_SIZE", world())))
    for _ in range(local_rank()):
        barrier()
    try:
        yield
    finally:
        for _ in range(turns - local_rank()):
            barrier()
