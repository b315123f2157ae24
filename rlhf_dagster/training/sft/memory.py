"""The peak memory of supervised fine-tuning, before it starts and without torch."""

import math

from rlhf_dagster.training.footprint.activations import (
    Graph,
    head_bytes,
    logits_bytes,
    reading_parts,
    training_parts,
)
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.footprint.ranks import own_rows
from rlhf_dagster.training.footprint.sharding import learned_in_parts, own_share, read_in_parts
from rlhf_dagster.training.footprint.weights import NUMBER, model_in_training
from rlhf_dagster.training.input_sizes import model_sizes, rows_at_most
from rlhf_dagster.training.specs import SftSpec


def sft_memory(spec: SftSpec) -> Parts:
    """Memory at the peak, with every demonstration as long as the settings allow."""
    model, settings, compute = model_sizes(spec.model), spec.settings, spec.compute
    rows, length = min(settings.batch_size, rows_at_most(spec.demonstrations)), settings.max_tokens
    at_once = math.ceil(rows / settings.accumulate)
    own = math.ceil(own_rows(rows, compute) / settings.accumulate)
    # Logits are computed at responses alone.
    predicted = min(length, spec.sampling.response_tokens) if spec.sampling.fixed_length else length
    logits = logits_bytes(model.shape, own * predicted, compute)
    logits += head_bytes(model, own * predicted, compute, settings.lora)
    training = training_parts([Graph(model, own, length)], logits, compute, settings.lora)
    # Every rank measures the loss before and after training on whole batches.
    measuring = reading_parts(model.shape, at_once * length, at_once * predicted, compute)
    measuring += read_in_parts(model, compute, settings.lora)
    if not settings.epochs:
        return own_share(Parts(weights=NUMBER * model.parameters), compute) + measuring
    held = own_share(model_in_training(model, compute, settings.lora), compute)
    return held + largest(training + learned_in_parts(model, compute, settings.lora), measuring)
