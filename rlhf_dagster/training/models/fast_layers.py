"""Faster kernels for a model's layers: the same functions, the same weights and checkpoints, other rounding.

Two layers cost most of a small model's time on a CPU. GPT-2's activation, `gelu_new`, is composed of several operations
in transformers (as `gelu_fast` is); PyTorch has the same function in one. And PyTorch's float32 matrix products come
from MKL, which never uses AVX-512 on processors of other makers than Intel; oneDNN, which PyTorch ships too, does, and
is more than twice as fast there.
"""

import platform
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import FastGELUActivation, NewGELUActivation
from transformers.pytorch_utils import Conv1D

from rlhf_dagster.common.lines import lines_of

CPU_INFO = Path("/proc/cpuinfo")
SMALLEST_PRODUCT = 1 << 20
"""Multiplications below which MKL, whose calls cost less, is the faster one: rows x inputs x outputs."""


def use_fast_layers(model: nn.Module) -> None:
    """Exchange layers of ``model`` in place; parameters, their names and the config stay."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation | FastGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
        # Only the class changes, so that copies, adapters and isinstance checks work as before.
        if type(module) in FAST and onednn_is_faster():
            module.__class__ = FAST[type(module)]


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 for which MKL does not use it.

    Decided by the kind of machine, not by timing: otherwise a busy moment could make two runs use different kernels.
    """
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in _processor()
    )


def _processor() -> str:
    """What names the processor's maker; empty where that is unknown, which counts as not Intel."""
    if not CPU_INFO.is_file():
        return platform.processor()
    lines = lines_of(CPU_INFO.read_text(encoding="utf-8", errors="replace"))
    return next((line for line in lines if line.startswith("vendor_id")), "")


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K] times the transpose of ``weight`` [N, K], plus ``bias`` [N], by oneDNN; without gradient."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class OneDnnLinear(torch.autograd.Function):
    """y = x W' + b for x [M, K], W [N, K] and b [N] or None, with both products of the backward pass by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            multiply(gradient, weight.t()) if for_x else None,
            _weight_gradient(gradient, x) if for_weight else None,
            gradient.sum(dim=0) if for_bias else None,
        )


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """gradient' x [N, K]. oneDNN copies a transposed first factor, so the smaller of the two comes first."""
    if gradient.shape[1] > x.shape[1]:
        return multiply(x.t(), gradient.t()).t()
    return multiply(gradient.t(), x.t())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`torch.nn.functional.linear`, by oneDNN where it can."""
    if not _fits(x, weight):
        return F.linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return multiply(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    return cast("Tensor", OneDnnLinear.apply(rows, weight, bias)).view(*x.shape[:-1], weight.shape[0])


def _fits(x: Tensor, weight: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32
    large = x.numel() * weight.shape[0] >= SMALLEST_PRODUCT
    return plain and large and not torch.is_autocast_enabled("cpu")


class FastLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class FastConv1D(Conv1D):
    """GPT-2's linear layer, whose weight is [K, N]."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight.t(), self.bias)


FAST: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: FastLinear, Conv1D: FastConv1D}
