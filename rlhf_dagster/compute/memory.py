"""Whether a training fits into context and memory, said before it starts. Importing this imports no torch."""

import math
import platform
from dataclasses import replace

from rlhf_dagster.compute.context import require_lengths
from rlhf_dagster.compute.devices import visible_devices
from rlhf_dagster.compute.free_memory import Free, free_memory, free_on_machine
from rlhf_dagster.compute.trainings import training_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.footprint.sharding import is_divided
from rlhf_dagster.training.footprint.weights import NUMBER
from rlhf_dagster.training.input_sizes import parameters_of
from rlhf_dagster.training.specs import PpoSpec, RewardModelSpec, Spec, TinyModelSpec

BUFFERS = 60_000_000
"""Bytes that libraries take when the first step runs."""
PROCESS = 350_000_000
"""Bytes of a training process before it trains: Python, PyTorch and Transformers, or CUDA's context on its device."""


def require_memory(spec: Spec, free: Free | None = None, here: int | None = None) -> None:
    """Raise UserError where a training needs more memory than is ``free``, on its device by default; does nothing if
    that is unknown.

    The context is looked at first: sequences that do not fit it need no memory. ``here`` are the ranks on this machine,
    of which one after the other opens whole models that are to be in parts; None: all.
    """
    require_lengths(spec)
    free = free or free_memory(spec.compute)
    training, needed = training_of(spec), _needed(spec, free)
    if not _is_enough(free, needed):
        parts = "" if spec.compute.sharding == "full" or why_whole(spec) else "set compute.sharding to full, "
        raise UserError(
            f"{training.title} needs about {needed / 1e9:.1f} GB and {_giga(free)} are free on {free.where}; {parts}"
            f"{training.remedy}, or take a smaller base model."
        )
    if is_divided(spec.compute):
        _require_room_to_open(spec, here or spec.compute.processes)


def _require_room_to_open(spec: Spec, here: int) -> None:
    machine, opened = Free(free_on_machine(), "this machine", shared=True), opening_bytes(spec, here)
    if not _is_enough(machine, opened):
        raise UserError(
            f"{training_of(spec).title} opens its models whole on {platform.node()} before they are divided among "
            f"ranks, which takes about {opened / 1e9:.1f} GB, and {_giga(machine)} are free; take a smaller base model."
        )


def settled(spec: Spec, free: Free | None = None) -> Spec:
    """``spec`` with what `compute.sharding: auto` means where so much is ``free``: `full` where whole ones do not fit.

    What cannot be in parts stays whole; :func:`require_memory` says so where it does not fit.
    """
    if spec.compute.sharding != "auto":
        return spec
    whole = replace(spec, compute=spec.compute.changed(sharding="none"))
    free = free or free_memory(spec.compute)
    if why_whole(spec) or _is_enough(free, _needed(whole, free)):
        return whole
    parts = replace(spec, compute=spec.compute.changed(sharding="full"))
    # Of a small model more is whole for a time than a rank is spared.
    return parts if required_bytes(parts) < required_bytes(whole) else whole


def why_whole(spec: Spec) -> str:
    """What keeps a training's models from being held in parts; empty where they can be."""
    if isinstance(spec, TinyModelSpec):
        return "a tiny model"
    lora = getattr(getattr(spec, "settings", None), "lora", None)
    if lora is not None and lora.base_bits is not None:
        return "lora.base_bits"
    return spec.compute.needed_to_shard()


def opening_bytes(spec: Spec, here: int) -> int:
    """Bytes that a machine with ``here`` ranks holds at most while models that will be in parts are opened: one rank's,
    on the CPU.

    PPO opens the policy and one more, and a reward model is opened beside SFT; numbers are in float32.
    """
    folders = [getattr(spec, name, None) for name in ("model", "start", "sft", "reward_model")]
    sizes = [parameters_of(folder) for folder in folders if folder is not None]
    together = 2 if isinstance(spec, PpoSpec | RewardModelSpec) else 1
    return PROCESS * here + NUMBER * together * max(sizes, default=0)


def _needed(spec: Spec, free: Free) -> int:
    return required_bytes(spec) * (spec.compute.processes if free.shared else 1)


def _is_enough(free: Free, needed: int) -> bool:
    return free.bytes is None or needed <= free.bytes


def _giga(free: Free) -> str:
    return f"{(free.bytes or 0) / 1e9:.1f} GB"


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
    process = 0 if spec.compute.launch == "in_process" else PROCESS
    return process + BUFFERS + math.ceil(training_of(spec).peak_memory(spec).total)
