"""Weights that are in parts: whole for the time of a rollout, and in parts again.

FSDP2 gathers a layer's weights for each of its passes, which all ranks must make together. After a pass the outermost
part of a model stays whole. The parameters of a whole part are plain tensors without gradients: those that are trained
are listed while all are in parts. On models that are not sharded nothing here does anything.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

STAYS_WHOLE = "stays_whole_after_a_pass"
"""An attribute of each module that was cut."""


@contextmanager
def whole_weights(*modules: nn.Module | None) -> Iterator[None]:
    """All weights of ``modules`` are whole on every rank, so that ranks need not make the same number of passes."""
    parts = _sharded_parts(modules)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(not getattr(part, STAYS_WHOLE), recurse=False)
            part.reshard()


def reshard(*modules: nn.Module | None) -> None:
    """Have only this rank's part of the weights of ``modules``, also of what is whole after a pass."""
    for part in _sharded_parts(modules):
        part.reshard()


def has_shards(module: nn.Module) -> bool:
    """Whether weights of ``module`` are in parts."""
    return bool(_sharded_parts((module,)))


def _sharded_parts(modules: tuple[nn.Module | None, ...]) -> list[Any]:
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return []
    found = [part for module in modules if module is not None for part in module.modules()]
    return [part for part in found if isinstance(part, fsdp.FSDPModule)]
