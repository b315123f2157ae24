"""The peak memory of pretraining, before it starts and without torch."""

from rlhf_dagster.config.training import TinyModelSettings
from rlhf_dagster.training.footprint.activations import (
    Graph,
    logits_bytes,
    training_parts,
)
from rlhf_dagster.training.footprint.parts import Parts
from rlhf_dagster.training.footprint.shape import ModelSizes, Shape
from rlhf_dagster.training.footprint.weights import gradients, trained_weights
from rlhf_dagster.training.specs import TinyModelSpec


def pretraining_memory(spec: TinyModelSpec) -> Parts:
    """Memory at the peak, of each rank: every rank trains the whole model on whole batches, without exchange."""
    tiny, compute = spec.settings, spec.compute
    model, tokens = _sizes(tiny), tiny.batch_size * tiny.context
    weights = trained_weights(model.parameters, compute) + gradients(
        model.parameters, compute.changed(processes=1, sharding="none")
    )
    logits = logits_bytes(model.shape, tokens, compute)
    return weights + training_parts([Graph(model, tiny.batch_size, tiny.context)], logits, compute)


def _sizes(tiny: TinyModelSettings) -> ModelSizes:
    layer = 12 * tiny.width**2 + 13 * tiny.width
    parameters = tiny.layers * layer + (tiny.vocabulary + tiny.context + 2) * tiny.width
    shape = Shape(tiny.layers, tiny.width, tiny.vocabulary, tiny.context, tiny.width, tiny.width, 4 * tiny.width)
    return ModelSizes(parameters, shape)
