"""What one rank holds where models are in parts (`compute.sharding: full`): its share, and what is whole for a time."""

from dataclasses import replace

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.footprint.shape import ModelSizes
from rlhf_dagster.training.footprint.weights import NUMBER, read_number

GATHERED_LAYERS = 3
"""Layers whose weights are there at once: one that computes, the next one as it comes, and what both come through."""
REDUCED = 2
"""Copies of a gradient while ranks add it up: as it was computed, and as it is sent."""


def is_divided(compute: ComputeSettings) -> bool:
    """Whether a rank holds a part of each model."""
    return compute.sharding == "full" and compute.processes > 1


def own_share(parts: Parts, compute: ComputeSettings) -> Parts:
    """What of ``parts`` one rank has of weights, gradients and moments; all of the rest."""
    if not is_divided(compute):
        return parts
    return replace(parts, weights=parts.weights / compute.processes, optimizer=parts.optimizer / compute.processes)


def gathered(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None = None) -> Parts:
    """What is whole in a pass over a model in parts: some layers, and what stands around the layers."""
    if not is_divided(compute):
        return Parts()
    number = NUMBER if lora is None else read_number(compute)
    return Parts(weights=number * (model.outside + GATHERED_LAYERS * model.layer))


def reduced(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None = None) -> Parts:
    """Gradients that are whole in a backward pass: of one layer, or of what stands around them."""
    if not is_divided(compute):
        return Parts()
    adapters = 0 if lora is None else model.adapter_parameters(lora) / max(model.shape.layers, 1)
    largest = max(model.layer, model.outside) if lora is None else adapters
    return Parts(optimizer=REDUCED * NUMBER * largest)


def sampled_whole(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None = None) -> Parts:
    """All weights of a model in parts, which every rank has for the time of a rollout."""
    if not is_divided(compute):
        return Parts()
    number = NUMBER if lora is None else read_number(compute)
    return Parts(weights=number * (model.parameters + model.layer))
