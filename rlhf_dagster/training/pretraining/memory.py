"""The peak memory of pretraining, before it starts and without torch."""

from rlhf_dagster.config.training import TinyModelSettings
from rlhf_dagster.training.footprint import (
    KEPT,
    LOSS_LOGITS,
    TRAINED,
    Shape,
    cast_bytes,
    kept_bytes,
    logits_bytes,
)
from rlhf_dagster.training.specs import TinyModelSpec


def pretraining_memory(spec: TinyModelSpec) -> float:
    """Peak memory in bytes, of each rank: every rank trains the whole model on whole batches."""
    tiny = spec.settings
    shape, parameters = Shape(tiny.layers, tiny.width, tiny.vocabulary, tiny.context, KEPT), _parameters(tiny)
    tokens = tiny.batch_size * tiny.context
    weights = TRAINED * parameters + cast_bytes(parameters, spec.compute)
    return weights + kept_bytes(shape, tokens, spec.compute) + logits_bytes(LOSS_LOGITS, shape, tokens)


def _parameters(tiny: TinyModelSettings) -> int:
    layer = 12 * tiny.width**2 + 13 * tiny.width
    return tiny.layers * layer + (tiny.vocabulary + tiny.context + 2) * tiny.width
