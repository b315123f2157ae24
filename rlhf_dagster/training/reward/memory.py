"""The peak memory of training a reward model, before it starts and without torch."""

import math

from rlhf_dagster.training.footprint import FROZEN, kept_bytes, model_bytes, own_rows, passing_bytes, sampling_bytes
from rlhf_dagster.training.input_sizes import parameters_of, responses_at_most, rows_at_most, shape_of
from rlhf_dagster.training.specs import RewardModelSpec

SCORED_AT_ONCE = 256
"""Rows in a forward pass where a reward model scores responses."""


def reward_model_memory(spec: RewardModelSpec) -> float:
    """Peak memory in bytes, with every response as long as the settings allow."""
    shape, parameters = shape_of(spec.sft), parameters_of(spec.sft)
    settings, sampling = spec.settings, spec.sampling
    labels = min(settings.batch_size, rows_at_most(spec.preferences))
    length, responses = settings.max_tokens, responses_at_most(spec.preferences)
    own = math.ceil(own_rows(labels, spec.compute) / settings.accumulate)
    kept = kept_bytes(shape, own * responses * length, spec.compute, settings.lora)
    # Every rank scores the normalisation samples, and parts of whole batches of held-out labels.
    scored = math.ceil(labels / settings.accumulate) * responses
    scored = max(scored, min(SCORED_AT_ONCE, settings.normalisation_samples))
    weights = model_bytes(parameters, shape, spec.compute, settings.lora)
    training = weights + max(kept, passing_bytes(shape, scored * length))
    # The SFT policy is loaded beside the new model to draw those samples, before there are gradients.
    drawn = min(sampling.batch_size, settings.normalisation_samples)
    return max(training, 2 * FROZEN * parameters + sampling_bytes(shape, drawn, sampling))
