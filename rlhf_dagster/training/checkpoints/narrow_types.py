"""The precision in which weights came: 16 bits that were opened in float32 lose nothing where they go back to 16."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import CONFIG_NAME

NARROW = (torch.bfloat16, torch.float16)


def narrow_type(tensors: Iterable[Tensor]) -> torch.dtype | None:
    """The first of :data:`NARROW` that has every floating-point number of ``tensors``; None where neither does."""
    floating = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
    return next((kind for kind in NARROW if floating and all(_holds(kind, tensor) for tensor in floating)), None)


def narrowed(state: Mapping[str, Tensor], kind: torch.dtype) -> dict[str, Tensor]:
    """``state`` with its floating-point numbers in ``kind``; names that share one tensor go on sharing one."""
    made: dict[tuple[int, torch.Size, tuple[int, ...]], Tensor] = {}
    for tensor in state.values():
        if tensor.is_floating_point():
            made.setdefault(_place(tensor), tensor.detach().to(kind))
    return {name: made.get(_place(tensor), tensor) for name, tensor in state.items()}


def round_to(tensors: Iterable[Tensor], kind: torch.dtype) -> None:
    """Round floating-point numbers in place to those that ``kind`` has."""
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(kind).to(tensor.dtype)


def name_type(folder: Path, kind: torch.dtype) -> None:
    """Say in a checkpoint's config.json in which type its weights are, which plain transformers opens it in."""
    file = folder / CONFIG_NAME
    config = _with_type(json.loads(file.read_text(encoding="utf-8")), str(kind).removeprefix("torch."))
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _holds(kind: torch.dtype, tensor: Tensor) -> bool:
    return torch.equal(tensor, tensor.to(kind).to(tensor.dtype))


def _place(tensor: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _with_type(config: Any, kind: str) -> Any:
    if not isinstance(config, dict):
        return config
    return {
        key: kind if key == "dtype" and value == "float32" else _with_type(value, kind) for key, value in config.items()
    }
