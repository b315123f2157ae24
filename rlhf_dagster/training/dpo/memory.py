"""The peak memory of direct preference optimisation, before it starts and without torch."""

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
from rlhf_dagster.training.footprint.weights import model_in_training
from rlhf_dagster.training.input_sizes import model_sizes, responses_at_most, rows_at_most
from rlhf_dagster.training.specs import DpoSpec


def _rows(spec: DpoSpec) -> tuple[int, int, int]:
    """Rows of a batch, and how many responses of each are trained on and read at most."""
    if spec.settings.loss == "kto" or spec.preferences is None:
        # Beside a single response one to another prompt is read, without a gradient.
        return spec.settings.batch_size, 1, 2
    responses = responses_at_most(spec.preferences)
    return min(spec.settings.batch_size, rows_at_most(spec.preferences)), responses, responses


def dpo_memory(spec: DpoSpec) -> Parts:
    """Memory at the peak. The reference is the policy before it is trained, so there is one model at any time."""
    model, settings, sampling, compute = model_sizes(spec.sft), spec.settings, spec.sampling, spec.compute
    length = sampling.prompt_tokens + sampling.response_tokens
    labels, trained, responses = _rows(spec)
    own = math.ceil(own_rows(labels, compute) / settings.accumulate) * trained
    predicted = own * sampling.response_tokens
    logits = logits_bytes(model.shape, predicted, compute)
    logits += head_bytes(model, predicted, compute, settings.lora)
    training = training_parts([Graph(model, own, length)], logits, compute, settings.lora)
    # Every rank measures parts of whole batches after training; the reference's log-probs are computed before it.
    read = max(math.ceil(labels / settings.accumulate) * responses, sampling.batch_size)
    reading = reading_parts(model.shape, read * length, read * sampling.response_tokens, compute)
    held = own_share(model_in_training(model, compute, settings.lora), compute)
    reading += read_in_parts(model, compute, settings.lora)
    return held + largest(training + learned_in_parts(model, compute, settings.lora), reading)
