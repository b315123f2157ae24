"""One call that makes a stage repeatable, and the state of every random number generator."""

import os
import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, and ask PyTorch for deterministic algorithms.

    Operations without a deterministic algorithm on CUDA (attention's backward pass, some sums) warn and go on: on a GPU
    two runs may differ in the last bits; on a CPU they are equal bit for bit for the same number of threads.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # With the line above, PyTorch also fills every new tensor with NaN, to expose reads of unwritten memory; that would
    # cost a twentieth of the time of a training on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def random_state() -> dict[str, Any]:
    """The states of the generators of Python, NumPy and PyTorch, in types that can be loaded without running code."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the generators from ``state``; those of GPUs only where there are as many GPUs as then."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        for device, generator in enumerate(state["cuda"]):
            torch.cuda.set_rng_state(generator.cpu(), device)
