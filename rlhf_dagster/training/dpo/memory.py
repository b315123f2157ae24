"""The peak memory of direct preference optimisation, before it starts and without torch."""

import math

from rlhf_dagster.training.footprint import (
    POLICY_LOGITS,
    kept_bytes,
    logits_bytes,
    model_bytes,
    own_rows,
    passing_bytes,
)
from rlhf_dagster.training.input_sizes import parameters_of, responses_at_most, rows_at_most, shape_of
from rlhf_dagster.training.specs import DpoSpec


def dpo_memory(spec: DpoSpec) -> float:
    """Peak memory in bytes. The reference is the policy before it is trained, so there is one model at any time."""
    shape, parameters = shape_of(spec.sft), parameters_of(spec.sft)
    settings, sampling, compute = spec.settings, spec.sampling, spec.compute
    length, responses = sampling.prompt_tokens + sampling.response_tokens, responses_at_most(spec.preferences)
    labels = min(settings.batch_size, rows_at_most(spec.preferences))
    own = math.ceil(own_rows(labels, compute) / settings.accumulate) * responses
    kept = kept_bytes(shape, own * length, compute, settings.lora)
    training = kept + logits_bytes(POLICY_LOGITS, shape, own * sampling.response_tokens)
    # Every rank measures parts of whole batches after training; the reference's log-probs are computed before it.
    read = max(math.ceil(labels / settings.accumulate) * responses, sampling.batch_size)
    reading = passing_bytes(shape, read * length) + logits_bytes(POLICY_LOGITS, shape, read * sampling.response_tokens)
    return model_bytes(parameters, shape, compute, settings.lora) + max(training, reading)
