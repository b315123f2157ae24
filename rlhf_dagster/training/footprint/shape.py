"""The sizes of a model that decide how much memory it needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from rlhf_dagster.config.training import LoraSettings

GPT2_ADAPTED = 16
"""Inputs plus outputs of the linear maps of GPT-2's layer, in multiples of the width: 4 for attention's first, 2 for
its last, 5 for each of the two of the inner layer."""
Activation = Literal["plain", "relu", "in_pieces"]
"""What an activation function keeps: its input, beside its output that the next map reads; its output alone; or copies
in several operations."""


class Shape(NamedTuple):
    """The sizes of a model's layers, in numbers for each token; 0 where the model's config does not say."""

    layers: int
    width: int
    vocabulary: int
    context: int
    queries: int
    """Of a layer's queries: heads times the size of a head."""
    keys: int
    """Of its keys, and again of its values; less than `queries` where several heads share them (grouped queries)."""
    inner: int
    """Of the inner (MLP) layer, all experts that a token goes to together."""
    gated: bool = False
    """Whether the inner layer is a product of two maps, one behind an activation function (Shazeer 2020)."""
    separate: bool = False
    """Whether queries, keys and values are maps of their own."""
    root_mean_square: bool = False
    """Whether norms are RMSNorm, which transformers computes in several operations."""
    packed: bool = False
    """Whether values are a view of a tensor that holds queries and keys too, as they were before their rotation."""
    activation: Activation = "plain"

    @property
    def readers(self) -> int:
        """Linear maps that read the output of one of a layer's two norms."""
        return (3 if self.separate else 1) + (2 if self.gated else 1)

    @property
    def adapted(self) -> int:
        """Linear maps of a layer: those that read a norm's output, and one behind attention and inner layer each."""
        return self.readers + 2


@dataclass(frozen=True)
class ModelSizes:
    """A model as its files describe it."""

    parameters: int
    shape: Shape
    maps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Inputs and outputs of the linear maps of its layers, by name."""
    outside: int = 0
    """Parameters around its layers: embeddings, output head, a last norm."""

    @property
    def layer(self) -> float:
        """Parameters of one of its layers."""
        return (self.parameters - self.outside) / max(self.shape.layers, 1)

    @property
    def in_maps(self) -> int:
        """Parameters of these maps."""
        return sum(first * second for first, second in self.maps.values())

    @property
    def largest_map(self) -> int:
        return max((first * second for first, second in self.maps.values()), default=0)

    def adapter_parameters(self, lora: LoraSettings) -> int:
        """Parameters of adapters on the maps that the settings choose; on GPT-2's where no map is known."""
        if not self.maps:
            return lora.rank * GPT2_ADAPTED * self.shape.width * self.shape.layers
        return lora.rank * sum(sum(sizes) for name, sizes in self.maps.items() if _is_chosen(name, lora.targets))


def _is_chosen(name: str, targets: list[str] | None) -> bool:
    """As peft chooses: by the whole name, or by its end."""
    return targets is None or any(name == target or name.endswith(f".{target}") for target in targets)
