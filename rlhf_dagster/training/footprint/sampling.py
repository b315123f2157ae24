"""Bytes that sampling needs: the cache of keys and values, and the distribution from which a token is drawn."""

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.training.footprint.activations import passing_bytes
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.footprint.shape import Shape
from rlhf_dagster.training.footprint.weights import read_number

DRAWING = 40
"""Bytes for each entry of the vocabulary while a token is drawn: log-probs, and cumulative sums in float64."""


def token_cache_bytes(shape: Shape, compute: ComputeSettings) -> int:
    """Bytes of one token's keys and values in all layers."""
    return 2 * read_number(compute) * shape.layers * shape.keys


def sampling_parts(shape: Shape, rows: int, sampling: SamplingSettings, compute: ComputeSettings) -> Parts:
    """What is needed beside the weights while ``rows`` responses are drawn at once.

    Most is needed when the prompts are read or when the last token is drawn. The cache's buffers have their full
    length from the beginning.
    """
    cache = Parts(cache=token_cache_bytes(shape, compute) * rows * (sampling.prompt_tokens + sampling.response_tokens))
    reading = Parts(activations=passing_bytes(shape, rows * sampling.prompt_tokens, compute))
    drawing = Parts(logits=DRAWING * shape.vocabulary * rows)
    return cache + largest(reading, drawing)
