"""Frozen weights in 4 or 8 bits under adapters (QLoRA, Dettmers et al. 2023), coded by bitsandbytes.

4 bits are NF4 in blocks of 64 with doubly quantised scales, 8 bits the dynamic code in blocks of 256. Weights alone are
coded: a product is computed from the numbers that the codes stand for, in the precision of the moment, so that what a
row gives does not depend on the rows beside it. These numbers are made anew at each use, in the backward pass too.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.low_precision.held_weights import BFLOAT16, in_bfloat16, multiplies_bfloat16
from rlhf_dagster.training.runtime.freeing import return_what_is_freed

BLOCK_OF_8_BITS = 256


class QuantisedLinear(nn.Linear):
    """A linear layer whose weight is codes; in the place of a linear layer or of GPT-2's."""

    def __init__(self, layer: nn.Linear | Conv1D, bits: int, device: torch.device) -> None:
        turned = isinstance(layer, Conv1D)
        weight = layer.weight.detach().to(device)
        weight = weight.t().contiguous() if turned else weight
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        codes, self.state = _coded(weight, bits)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().to(device), requires_grad=False)
        self.bits, self.turned = bits, turned

    def forward(self, input: Tensor) -> Tensor:
        half = in_bfloat16(input)
        x = input.to(BFLOAT16) if half else input
        if half and not multiplies_bfloat16(x.device.type):
            x = x.float()
        with torch.autocast(x.device.type, enabled=False):
            y = cast("Tensor", _Product.apply(x, self))
            y = y if self.bias is None else y + self.bias.to(y.dtype)
        return y.to(BFLOAT16) if half else y

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """The numbers [N, K] that the codes stand for."""
        code = _bitsandbytes().functional
        decode = code.dequantize_4bit if self.bits == 4 else code.dequantize_blockwise
        return decode(self.weight, self.state).view(self.out_features, self.in_features).to(dtype)

    def plain_layer(self) -> nn.Linear | Conv1D:
        """A layer of the kind that this one is in the place of, with these numbers in float32."""
        weight = self.decoded(torch.float32)
        if self.turned:
            layer: nn.Linear | Conv1D = Conv1D(self.out_features, self.in_features)
            weight = weight.t().contiguous()
        else:
            layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().float(), requires_grad=False)
        return layer


class _Product(torch.autograd.Function):
    """x W', which keeps no numbers of W for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.decoded(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        return gradient @ ctx.layer.decoded(gradient.dtype), None


@torch.no_grad()
def quantise(model: PreTrainedModel, names: Sequence[str], bits: int, device: torch.device) -> None:
    """Code the linear layers ``names`` of ``model``, in place, one after the other on ``device``.

    Layers that share a weight share its codes. The numbers that are made anew at each use would leave holes among what
    layers keep: a processor's memory is given back as soon as it is free. Raises UserError where bitsandbytes is not
    there or cannot.
    """
    if device.type == "cpu":
        return_what_is_freed()
    made: dict[int, QuantisedLinear] = {}
    for name in names:
        layer = cast("nn.Linear | Conv1D", model.get_submodule(name))
        key = id(layer.weight)
        if key not in made:
            made[key] = QuantisedLinear(layer, bits, device)
        _put(model, name, made[key])


def plain_layers(model: nn.Module) -> None:
    """Put a plain layer with the same numbers into the place of each that is coded."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, QuantisedLinear):
            _put(model, name, layer.plain_layer())


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    place, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(place), leaf, layer)


def code_states(model: nn.Module) -> list[Any]:
    """Scales of all codes of ``model``, which are no tensors of a module."""
    return [layer.state for layer in model.modules() if isinstance(layer, QuantisedLinear)]


def coded_bytes(model: nn.Module) -> int:
    """Bytes of all codes of ``model`` with their scales."""
    return sum(layer.weight.numel() + _scale_bytes(layer.state) for layer in _layers(model))


def _layers(model: nn.Module) -> list[QuantisedLinear]:
    return list({id(layer): layer for layer in model.modules() if isinstance(layer, QuantisedLinear)}.values())


def _scale_bytes(state: Any) -> int:
    inner = getattr(state, "state2", None)
    return state.absmax.nbytes + (0 if inner is None else inner.absmax.nbytes)


def _coded(weight: Tensor, bits: int) -> tuple[Tensor, Any]:
    code = _bitsandbytes().functional
    try:
        if bits == 4:
            return cast("tuple[Tensor, Any]", code.quantize_4bit(weight, compress_statistics=True, quant_type="nf4"))
        size = BLOCK_OF_8_BITS if weight.numel() >= BLOCK_OF_8_BITS else 1 << int(math.log2(weight.numel()))
        return cast("tuple[Tensor, Any]", code.quantize_blockwise(weight, blocksize=size))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"bitsandbytes cannot hold weights in {bits} bits on {weight.device.type} ({error}); leave "
            "`lora.base_bits` out."
        ) from None


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(
            f"`lora.base_bits` needs bitsandbytes; `{install_extras('quantised')}`, or leave it out."
        ) from None
    return bitsandbytes
