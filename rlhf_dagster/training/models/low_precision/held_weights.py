"""Weights in bfloat16: held so where they are only read, and cast once for many forward passes where they are trained.

Autocast casts a linear layer's weight at every call. A layer that holds its weight in bfloat16 computes the very same
numbers in half the memory. Norms, biases and the residual stream stay in float32; so do embeddings whose numbers
bfloat16 does not have. Outside of autocast, as in the trials of a model, such a layer computes in float32.

Processors without products in bfloat16 compute them several times slower than those in float32. There the same product
is computed from the rounded factors in float32, and rounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf_dagster.training.models.fast_layers import FastConv1D, FastLinear

BFLOAT16 = torch.bfloat16


@cache
def multiplies_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 are a device's own; some processors have none."""
    if device != "cpu":
        return True
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def in_bfloat16(x: Tensor) -> bool:
    """Whether a product with ``x`` is to be computed in bfloat16."""
    kind = x.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == BFLOAT16


def half_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b in bfloat16, as autocast computes it, for a ``weight`` that has been rounded to it (in any type)."""
    if multiplies_bfloat16(x.device.type):
        return F.linear(x, weight, bias)
    rounded = None if bias is None else bias.to(BFLOAT16).float()
    factor, kind = x.to(BFLOAT16).float(), x.device.type
    # The context manager of autocast takes longer than a small product.
    enabled = torch.is_autocast_enabled(kind)
    torch.set_autocast_enabled(kind, False)
    try:
        return F.linear(factor, weight.float(), rounded).to(BFLOAT16)
    finally:
        torch.set_autocast_enabled(kind, enabled)


def held_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b in the precision of the moment, for a ``weight`` that has been rounded to bfloat16."""
    return half_linear(x, weight, bias) if in_bfloat16(x) else F.linear(x, weight.to(x.dtype), bias)


class HeldLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return held_linear(input, self.weight, self.bias)


class HeldConv1D(Conv1D):
    """GPT-2's linear layer, whose weight is [K, N]."""

    def forward(self, x: Tensor) -> Tensor:
        return held_linear(x, self.weight.t(), self.bias)


class HeldEmbedding(nn.Embedding):
    """Rows in bfloat16, given in float32, with which the residual stream begins."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).float()


HELD: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: HeldLinear,
    FastLinear: HeldLinear,
    HeldLinear: HeldLinear,
    Conv1D: HeldConv1D,
    FastConv1D: HeldConv1D,
    HeldConv1D: HeldConv1D,
}


@torch.no_grad()
def hold_in_bfloat16(model: PreTrainedModel) -> None:
    """Hold in bfloat16, in place, the weights of ``model`` that are read in bfloat16 alone; it cannot be trained then.

    Its numbers under autocast stay the same.
    """
    halves: dict[int, nn.Parameter] = {}
    embedding = model.get_input_embeddings()
    if type(embedding) is nn.Embedding and _is_exact(embedding.weight):
        exact = halves[id(embedding.weight)] = _half(embedding.weight)
        embedding.weight = exact
        embedding.__class__ = HeldEmbedding
    for layer in [module for module in model.modules() if type(module) in HELD]:
        weight = layer._parameters["weight"]
        assert weight is not None  # noqa: S101  # every linear layer has one
        if id(weight) not in halves:
            halves[id(weight)] = _half(weight)
        layer._parameters["weight"] = halves[id(weight)]
        layer.__class__ = HELD[type(layer)]


@contextmanager
def cast_once(model: nn.Module) -> Iterator[None]:
    """Linear layers of ``model`` have their weights rounded once, for all forward passes of the block under autocast.

    Weights must not change meanwhile; afterwards the layers are as before. Without autocast in bfloat16 nothing
    happens.
    """
    device = next(model.parameters())
    layers = [module for module in model.modules() if type(module) in HELD] if in_bfloat16(device) else []
    before = [(layer, type(layer), layer._parameters["weight"]) for layer in layers]
    for layer, kind, weight in before:
        assert weight is not None  # noqa: S101  # every linear layer has one
        layer._parameters["weight"] = nn.Parameter(_rounded(weight.detach()), requires_grad=False)
        layer.__class__ = HELD[kind]
    try:
        yield
    finally:
        for layer, kind, weight in before:
            layer._parameters["weight"] = weight
            layer.__class__ = kind


def _rounded(weight: Tensor) -> Tensor:
    """In the type in which this machine multiplies it."""
    half = weight.to(BFLOAT16)
    return half if multiplies_bfloat16(weight.device.type) else half.float()


def _half(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().to(BFLOAT16), requires_grad=False)


def _is_exact(weight: Tensor) -> bool:
    """Whether bfloat16 has all numbers of a weight, as where it was saved in it."""
    return weight.dtype == BFLOAT16 or all(
        torch.equal(part, part.to(BFLOAT16).float()) for part in weight.split(1 << 14)
    )
