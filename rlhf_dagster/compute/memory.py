"""Whether a training fits into context and memory, said before it starts. Importing this imports no torch."""

import math
from dataclasses import replace

from rlhf_dagster.compute.context import require_lengths
from rlhf_dagster.compute.devices import visible_devices
from rlhf_dagster.compute.free_memory import free_memory
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.specs import Spec

BUFFERS = 60_000_000
"""Bytes that libraries take when the first step runs."""
PROCESS = 350_000_000
"""Bytes of a training process before it trains: Python, PyTorch and Transformers, or CUDA's context on its device."""


def require_memory(spec: Spec) -> None:
    """Raise UserError where a training needs more memory than its device has free; does nothing if that is unknown.

    The context is looked at first: sequences that do not fit it need no memory.
    """
    require_lengths(spec)
    free = free_memory(spec.compute)
    needed = required_bytes(spec) * (spec.compute.processes if free.shared else 1)
    if free.bytes is not None and needed > free.bytes:
        training = training_of(spec)
        raise UserError(
            f"{training.title} needs about {needed / 1e9:.1f} GB and {free.bytes / 1e9:.1f} GB are free on "
            f"{free.where}; {training.remedy}, or take a smaller base model."
        )


def placed(spec: Spec) -> Spec:
    """``spec`` with the kind of device that `auto` means here."""
    if spec.compute.device != "auto":
        return spec
    device = "cuda" if visible_devices() else "cpu"
    return replace(spec, compute=spec.compute.changed(device=device))


def required_bytes(spec: Spec) -> int:
    """An estimate of the peak memory of one training process, in bytes, from settings and checkpoints' headers.

    Weights, gradients, optimiser, and the activations of the stage's largest batch; every sequence is taken to be as
    long as the settings allow.
    """
    spec = placed(spec)
    process = PROCESS if spec.compute.launch == "process" else 0
    return process + BUFFERS + math.ceil(training_of(spec).peak_memory(spec).total)
