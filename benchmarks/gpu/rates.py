"""Seconds of calls on a device, and what its matrix products and its memory do."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch


@cache
def rates(device: str) -> dict[str, Any]:
    """Floating-point operations of bf16 matrix products and bytes of copies, each a second, the best of some runs."""
    side, cells = (8192, 1 << 28) if device == "cuda" else (512, 1 << 22)
    one, other = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.empty(cells, device=device) for _ in range(2))
    product = _best(lambda: torch.mm(one, other), device)
    copy = _best(lambda: target.copy_(source), device)
    return {"matrix products": 2 * side**3 / product, "copies": 2 * 4 * cells / copy}


def _best(call: Callable[[], Any], device: str, runs: int = 10) -> float:
    """Seconds of the fastest of some calls."""
    return min(timed(call, device) for _ in range(runs))


def timed(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call, and of all that it started on the device."""
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
