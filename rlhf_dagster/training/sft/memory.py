"""The peak memory of supervised fine-tuning, before it starts and without torch."""

import math

from rlhf_dagster.training.footprint import LOSS_LOGITS, kept_bytes, logits_bytes, model_bytes, own_rows, passing_bytes
from rlhf_dagster.training.input_sizes import parameters_of, rows_at_most, shape_of
from rlhf_dagster.training.specs import SftSpec


def sft_memory(spec: SftSpec) -> float:
    """Peak memory in bytes, with every demonstration as long as the settings allow."""
    shape, parameters, settings = shape_of(spec.model), parameters_of(spec.model), spec.settings
    rows, parts = min(settings.batch_size, rows_at_most(spec.demonstrations)), settings.accumulate
    at_once = (math.ceil(rows / parts), math.ceil(own_rows(rows, spec.compute) / parts))
    tokens, own_tokens = (count * settings.max_tokens for count in at_once)
    kept = kept_bytes(shape, own_tokens, spec.compute, settings.lora)
    training = kept + logits_bytes(LOSS_LOGITS, shape, own_tokens)
    # Every rank measures the loss before and after training on whole batches.
    measuring = passing_bytes(shape, tokens) + logits_bytes(LOSS_LOGITS, shape, tokens)
    return model_bytes(parameters, shape, spec.compute, settings.lora) + max(training, measuring)
