"""What one rank holds where models are in parts (`compute.sharding: full`): its share, and what is whole for a time."""

from dataclasses import replace

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.footprint.shape import ModelSizes
from rlhf_dagster.training.footprint.weights import NUMBER, read_number

READ_LAYERS = 3
"""Layers that are whole in a forward pass: one that computes, the next one as it comes, and what both come through."""
LEARNED_LAYERS = 4
"""And in a backward pass: one that computes, its gradients, the next one as it comes, and the gradients of the one
before, as they are sent (FSDP2 sends those of one layer at a time)."""


def is_divided(compute: ComputeSettings) -> bool:
    """Whether a rank holds a part of each model."""
    return compute.sharding == "full" and compute.processes > 1


def own_share(parts: Parts, compute: ComputeSettings) -> Parts:
    """What of ``parts`` one rank has of weights, gradients and moments; all of the rest."""
    if not is_divided(compute):
        return parts
    return replace(parts, weights=parts.weights / compute.processes, optimizer=parts.optimizer / compute.processes)


def read_in_parts(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None = None) -> Parts:
    """What is whole in a forward pass over a model in parts: some layers, and what stands around the layers."""
    if not is_divided(compute):
        return Parts()
    number = NUMBER if lora is None else read_number(compute)
    return Parts(gathered=number * (model.outside + READ_LAYERS * model.layer))


def learned_in_parts(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None = None) -> Parts:
    """What is whole in a backward pass: layers and their gradients, and what stands around them with its gradient.

    Of the latter, the output head's gradient is there from the beginning. At the end comes the embedding's, twice as it
    is added up, when the gradients of the first layer are still being sent. Gradients of adapters are sent in a copy.
    Models that learn one after the other need this one after the other.
    """
    if not is_divided(compute):
        return Parts()
    if lora is not None:
        adapters = model.adapter_parameters(lora) / max(model.shape.layers, 1)
        return read_in_parts(model, compute, lora) + Parts(gathered=2 * NUMBER * adapters)
    embedding = min(model.shape.vocabulary * model.shape.width, model.outside)
    within = embedding + LEARNED_LAYERS * model.layer
    at_the_end = 3 * embedding + model.layer
    return Parts(gathered=NUMBER * (model.outside + max(within, at_the_end)))


def drawn_whole(model: ModelSizes, compute: ComputeSettings, trained: bool) -> Parts:
    """All weights of a model in parts, which every rank has while responses are drawn from it; float32 where they are
    ``trained``."""
    if not is_divided(compute):
        return Parts()
    number = NUMBER if trained else read_number(compute)
    return Parts(gathered=number * (model.parameters + model.layer))
