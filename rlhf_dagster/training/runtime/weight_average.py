"""The exponential moving average of a model's weights."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from rlhf_dagster.training.runtime.sharding.tensors import own_part


class WeightAverage:
    """After each update, decay x average + (1 - decay) x weights (InstructGPT, appendix C.4: decay 0.992).

    In float32 whatever the weights are: what one update adds is smaller than bfloat16's last digit. Every rank has the
    same weights, and so the same average.
    """

    def __init__(self, decay: float, weights: Mapping[str, Tensor]) -> None:
        """The average begins as ``weights``, those of the start."""
        self.decay = decay
        self.weights = {name: weight.detach().float().clone() for name, weight in weights.items()}

    @classmethod
    def of(cls, decay: float | None, weights: Mapping[str, Tensor]) -> Self | None:
        """An average that begins as ``weights``; None without a ``decay``."""
        return None if decay is None else cls(decay, weights)

    @torch.no_grad()
    def add(self, weights: Mapping[str, Tensor]) -> None:
        for name, average in self.weights.items():
            own_part(average).lerp_(own_part(weights[name].detach()).float(), 1 - self.decay)

    def like(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The average in the types of ``weights``."""
        return {name: average.to(weights[name].dtype) for name, average in self.weights.items()}
