"""What the numbers were measured on, and how fast it multiplies matrices."""

import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROWS, INNER, COLUMNS = 1016, 768, 3072
"""The largest product in a layer of GPT-2 small over 8 sequences of 127 tokens."""


def describe() -> dict[str, Any]:
    """Processor and libraries."""
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def matmul_rates(repetitions: int = 10) -> dict[str, float]:
    """Floating-point operations per CPU second of one thread multiplying float32 matrices, the best of some runs.

    `torch` is :func:`torch.mm`; `fastest` is the better of it and oneDNN's product.
    """
    from rlhf_dagster.training.models.fast_layers import multiply

    torch.set_num_threads(1)
    a, b = torch.randn(ROWS, INNER), torch.randn(COLUMNS, INNER)
    plain = _rate(lambda: torch.mm(a, b.t()), repetitions)
    has_onednn = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return {"torch": plain, "fastest": max(plain, _rate(lambda: multiply(a, b), repetitions) if has_onednn else 0)}


def _rate(product: Callable[[], Tensor], repetitions: int) -> float:
    seconds = []
    for _ in range(repetitions):
        began = time.process_time()
        product()
        seconds.append(time.process_time() - began)
    return 2 * ROWS * INNER * COLUMNS / min(seconds)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
