"""What the numbers were measured on."""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

SIZE = 1024


def describe() -> dict[str, Any]:
    """Processor, libraries, and the rate of one thread's matrix multiplication."""
    return {
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "matmul_gflops": matmul_rate() / 1e9,
    }


def matmul_rate(repetitions: int = 20) -> float:
    """Floating-point operations per second of one thread multiplying float32 matrices, the best of some runs."""
    torch.set_num_threads(1)
    a, b = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    return 2 * SIZE**3 / min(seconds)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
