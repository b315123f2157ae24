"""The parts of a training's memory at one moment."""

from dataclasses import astuple, dataclass
from typing import Self


@dataclass(frozen=True)
class Parts:
    """Bytes by what they are for."""

    weights: float = 0.0
    """Of all models, and copies of weights in another precision."""
    optimizer: float = 0.0
    """Gradients and what the optimiser keeps of them."""
    gathered: float = 0.0
    """Weights, and gradients of them, that a rank whose models are in parts has whole for a time."""
    activations: float = 0.0
    """What layers keep for the backward pass, or hold in a pass without one."""
    logits: float = 0.0
    """Logits and what is computed from them."""
    cache: float = 0.0
    """Keys and values of tokens while responses are sampled."""

    @property
    def total(self) -> float:
        return sum(astuple(self))

    def __add__(self, other: Self) -> Self:
        return type(self)(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))


def largest(*moments: Parts) -> Parts:
    """The moment at which a training needs most."""
    return max(moments, key=lambda moment: moment.total)
