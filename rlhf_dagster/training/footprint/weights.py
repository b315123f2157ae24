"""Bytes of weights, of gradients, and of what an optimiser keeps."""

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.footprint.shape import ModelSizes

NUMBER, HALF = 4, 2
"""Bytes of a float32 and of a bfloat16."""
IN_BLOCK, SCALE = 256, 4
"""Numbers that 8-bit Adam scales together (Dettmers et al. 2022), and the bytes of their scale."""
QUANTISED = {4: 4.127 / 8, 8: 1.0}
"""Bytes of a weight in NF4 with double quantisation: 4 bits, and 0.127 for the scales of blocks of 64 and 256 (Dettmers
et al. 2023, section 3); and in 8 bits, where the scale of a whole row counts for nothing."""


def read_number(compute: ComputeSettings) -> int:
    """Bytes of a weight that is only read."""
    return HALF if compute.precision == "bf16" else NUMBER


def trained_number(compute: ComputeSettings) -> int:
    """Bytes of a weight that is trained, and of its gradient."""
    return HALF if compute.precision == "bf16" and compute.trained_weights == "bf16" else NUMBER


def read_bytes(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None = None) -> float:
    """Bytes of a model that is only read, or lies under adapters; the maps of its layers may be quantised."""
    bits = None if lora is None else lora.base_bits
    quantised = 0 if bits is None else model.in_maps
    packed = 0.0 if bits is None else QUANTISED[bits] * quantised
    return packed + read_number(compute) * (model.parameters - quantised)


def trained_weights(parameters: int, compute: ComputeSettings) -> Parts:
    """Weights that are trained, and the optimiser's two moments of each, in float32 or in eight bits."""
    return Parts(weights=trained_number(compute) * parameters, optimizer=_moments(compute) * parameters)


def gradients(parameters: int, compute: ComputeSettings) -> Parts:
    """Gradients; several ranks that each have all of them exchange theirs in a second copy."""
    copies = 2 if compute.processes > 1 and compute.sharding != "full" else 1
    return Parts(optimizer=copies * trained_number(compute) * parameters)


def model_in_training(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None) -> Parts:
    """A model of which all weights are trained, or adapters beside weights that are only read."""
    if lora is None:
        return trained_weights(model.parameters, compute) + gradients(model.parameters, compute)
    adapters = model.adapter_parameters(lora)
    frozen = Parts(weights=read_bytes(model, compute, lora))
    return frozen + trained_weights(adapters, compute) + gradients(adapters, compute)


def _moments(compute: ComputeSettings) -> float:
    if compute.optimizer == "adamw_8bit":
        return 2 * (1 + SCALE / IN_BLOCK)
    return 2 * NUMBER


def shares_base(lora: LoraSettings | None, compute: ComputeSettings | None = None) -> bool:
    """Whether all models of a training are adapters on the same weights; each model in parts has its own."""
    in_parts = compute is not None and compute.sharding == "full"
    return lora is not None and not lora.merge and not in_parts
