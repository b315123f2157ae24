"""Whether a training fits into memory, said before it starts. Importing this imports no torch."""

import math

from rlhf_dagster.compute.free_memory import free_memory
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.specs import Spec

BUFFERS = 60_000_000
"""Bytes that libraries take when the first step runs."""
PROCESS = 350_000_000
"""Bytes of a training process before it trains: Python, PyTorch and Transformers, or CUDA's context on its device."""


def require_memory(spec: Spec) -> None:
    """Raise UserError where a training needs more memory than its device has free; does nothing if that is unknown."""
    free = free_memory(spec.compute)
    needed = required_bytes(spec) * (spec.compute.processes if free.shared else 1)
    if free.bytes is not None and needed > free.bytes:
        training = training_of(spec)
        raise UserError(
            f"{training.title} needs about {needed / 1e9:.1f} GB and {free.bytes / 1e9:.1f} GB are free on "
            f"{free.where}; {training.remedy}, or take a smaller base model."
        )


def required_bytes(spec: Spec) -> int:
    """An estimate of the peak memory of one training process, in bytes, from settings and checkpoints' headers.

    Weights, gradients, optimiser, and the activations of the stage's largest batch; every sequence is taken to be as
    long as the settings allow.
    """
    process = PROCESS if spec.compute.launch == "process" else 0
    return process + BUFFERS + math.ceil(training_of(spec).peak_memory(spec))
