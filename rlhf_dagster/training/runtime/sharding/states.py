"""States whose tensors are in parts, by torch.distributed.checkpoint: every rank writes its own, in safetensors.

What is no such tensor is in `rest.pt`, which runs no code when it is read; in the place of each tensor it has its name,
shape and type. A state can be read by any number of ranks, also by one process that holds everything.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf_dagster.training.runtime.distributed import is_main, is_sharded
from rlhf_dagster.training.runtime.sharding.tensors import empty_sharded

REST = "rest.pt"
_NAME, _SHAPE, _TYPE = "sharded tensor", "shape", "dtype"
_MARKED = {_NAME, _SHAPE, _TYPE}


def holds_shards(folder: Path) -> bool:
    """Whether the state in ``folder`` was written by :func:`write_sharded`."""
    return (folder / REST).is_file()


def write_sharded(state: Any, folder: Path) -> None:
    """Write tensors, numbers, texts, lists, tuples and dicts into ``folder``, which all ranks see; all call it.

    Raises OSError or RuntimeError where one of them cannot.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageWriter, save
    from torch.distributed.checkpoint.api import CheckpointException

    tensors: dict[str, Tensor] = {}
    rest = _without_tensors(state, "state", tensors)
    try:
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:  # which is no Exception
        raise RuntimeError(_said(error)) from None
    if is_main():
        torch.save(rest, folder / REST)


def read_sharded(folder: Path, device: torch.device, in_parts: bool) -> Any:
    """The state in ``folder``, with tensors on ``device``; ``in_parts`` where each rank is to have a part of them.

    All ranks call it. Raises OSError or RuntimeError where it cannot be read.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load
    from torch.distributed.checkpoint.api import CheckpointException

    tensors: dict[str, Tensor] = {}

    def made(name: str, shape: list[int], dtype: torch.dtype) -> Tensor:
        empty = empty_sharded(shape, dtype, device) if in_parts else torch.empty(shape, dtype=dtype, device=device)
        return tensors.setdefault(name, empty)

    state = _with_tensors(_rest(folder), made)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # as asked for
            load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not in_parts)
    except CheckpointException as error:
        raise RuntimeError(_said(error)) from None
    return state


def outline_of(folder: Path) -> Any:
    """The state in ``folder`` with tensors of the right shapes and types, but without their numbers."""
    return _with_tensors(_rest(folder), lambda name, shape, dtype: torch.empty(shape, dtype=dtype, device="meta"))


def _rest(folder: Path) -> Any:
    return torch.load(folder / REST, map_location="cpu", weights_only=True)


def _without_tensors(part: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``part`` of a state with a mark in the place of each tensor in parts, which goes into ``tensors``."""
    if is_sharded(part):
        tensors[name] = part.detach()
        return {_NAME: name, _SHAPE: list(part.shape), _TYPE: str(part.dtype).removeprefix("torch.")}
    if isinstance(part, dict):
        return {key: _without_tensors(value, f"{name}/{key}", tensors) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(_without_tensors(value, f"{name}/{place}", tensors) for place, value in enumerate(part))
    return part


def _with_tensors(part: Any, made: Callable[[str, list[int], torch.dtype], Tensor]) -> Any:
    if isinstance(part, dict) and part.keys() == _MARKED:
        return made(part[_NAME], part[_SHAPE], getattr(torch, part[_TYPE]))
    if isinstance(part, dict):
        return {key: _with_tensors(value, made) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(_with_tensors(value, made) for value in part)
    return part


def _said(error: Any) -> str:
    """What one of the ranks says."""
    return "; ".join(sorted({str(wrapped[0]) for wrapped in error.failures.values()})) or str(error)
