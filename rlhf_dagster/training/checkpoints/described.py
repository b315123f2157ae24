"""What a config.json asks for beyond the weights beside it: code of somebody else, or a model of another size.

Looked at before anything is made of it, since a model of a hundred thousand layers takes hours and all memory to make.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PretrainedConfig

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import holds_adapters
from rlhf_dagster.lineage.weight_files import tensors_of, weight_files
from rlhf_dagster.training.checkpoints.sources import Source, foreign_errors

MOST_LAYERS, MOST_PARTS = 256, 4096
"""The most layers that a config may ask for where there are fewer weights, and the most heads or experts."""
_LAYERS = re.compile(r"(^|_)(num|n)_.*layer|(^|_)layers?$|(^|_)depth$")
_PARTS = re.compile(r"(^|_)(num|n)_.*(head|expert|block|group|codebook|predict)")
_IMPLEMENTATION = "implementation"
"""How the names end of settings that say which code computes attention, or experts."""
_TIMES, _BESIDE = 2, 50_000_000
"""A model has at most so many times the numbers of its weights, besides heads that are new, buffers and padding."""


def require_no_fetched_code(values: Mapping[str, Any], place: str) -> None:
    """Raise UserError where a config's ``values`` name a kernel of the Hub, which is code that is fetched and run."""
    for name, value in _settings_in(values):
        fetched = [one for one in _texts_in(value) if "/" in one] if name.endswith(_IMPLEMENTATION) else []
        if fetched:
            raise UserError(
                f"{place}: config.json has `{name}` compute by {fetched[0]}, code that is fetched from elsewhere and "
                f"never run here; take `{name}` out of it."
            )


def require_described(auto_class: Any, config: PretrainedConfig, values: Mapping[str, Any], source: Source) -> None:
    """Raise UserError where a config describes a model far larger than its weights are."""
    tensors = _shapes(source)
    layers = max(len(tensors), MOST_LAYERS)
    for name, value in _settings_in(values):
        most = layers if _LAYERS.search(name) else MOST_PARTS if _PARTS.search(name) else math.inf
        if type(value) is int and value > most:
            raise UserError(
                f"{source.place}: config.json has {name} {value:,}, and a model with these weights has {most:,} at "
                "most; put back the config.json that belongs to them."
            )
    if not tensors:
        return
    held, described = sum(map(math.prod, tensors)), _numbers(auto_class, config, source)
    if described > _TIMES * held + _BESIDE:
        raise UserError(
            f"{source.place}: config.json describes a model of {described:,} numbers, and the weights have {held:,}; "
            "put back the config.json that belongs to the weights."
        )


def _numbers(auto_class: Any, config: PretrainedConfig, source: Source) -> int:
    """How many numbers a model of ``config`` has; none of them is made."""
    with torch.device("meta"), foreign_errors(source.place, "the model", "give one that transformers can make"):
        return sum(parameter.numel() for parameter in auto_class.from_config(config).parameters())


def _shapes(source: Source) -> list[tuple[int, ...]]:
    """Shapes of the weights in a folder; none where it holds adapters, whose model is opened apart."""
    folder = source.folder
    files = weight_files(folder) if folder is not None and not holds_adapters(folder) else []
    return [tensor.shape for file in files for tensor in tensors_of(file).values()]


def _settings_in(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Settings and their values, those of parts of the model included."""
    for name, value in values.items():
        yield str(name), value
        if isinstance(value, dict):
            yield from _settings_in(value)


def _texts_in(value: Any) -> list[str]:
    inner = value.values() if isinstance(value, dict) else [value]
    return [one for one in inner if isinstance(one, str)]
