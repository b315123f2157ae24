"""Estimates of the memory that the parts of a training need, in bytes: weights, activations, logits, keys and values.

The file ``memory.py`` beside each training adds up that training's parts, without torch, before the training starts.
The estimates were 0.8 to 1.15 times the measured growth of a CPU process's resident memory, in 29 trainings of all
stages with models of 1 to 90 million parameters (GPT-2 and Llama shapes).
"""

import math
from typing import NamedTuple

from rlhf_dagster.config.training import ComputeSettings, LoraSettings, SamplingSettings

NUMBER = 4
"""Bytes of a float32: the type of weights, gradients, Adam's moments and log-probs at any `precision`."""
TRAINED = 4 * NUMBER
"""Bytes of a parameter that is trained: weight, gradient and Adam's two moments."""
FROZEN = NUMBER
KEPT, KEPT_IN_PIECES = 17, 32
"""Numbers that a layer keeps for each token until the backward pass, in multiples of the width: 4 for inputs and
outputs of its two norms, 3 for queries, keys and values, 2 for attention, 2 x 4 for the inner (MLP) layer. The second
number is for an activation function of several operations, most of which keep a copy of the inner layer. The count is
that of Korthikanti et al. 2022, section 4.1, without dropout and with fused attention."""
BF16_KEPT = 2 / 3
"""Share of KEPT where matrix products are in bfloat16: norms and the residual stream stay in float32."""
BF16_WEIGHT = 2
"""Bytes of a parameter's copy in bfloat16, kept from the forward to the backward pass."""
ADAPTED = 16
"""Inputs plus outputs of a layer's linear maps, in multiples of the width: 4 for attention's first, 2 for its last,
5 for each of the two maps of the inner layer."""
ADAPTED_HOLES = 0.75
"""Memory that adapters add to what a layer keeps, as a share of KEPT. The outputs of a linear map and of its adapter
are freed once their sum is computed, which leaves holes in memory. Measured in five trainings of 4 and 26 million
parameters, the shares were 0.7 to 0.8."""
PASSING = 12
"""Numbers for each token, in multiples of the width, in a forward pass without gradients, which holds one layer."""
CACHE = 1
"""Memory of the key-value cache over the size of its content: 1, as it is written into buffers of full length."""
LOSS_LOGITS = 3
"""Copies of logits in a language-modelling loss: logits and log-softmax, or log-softmax and two gradients."""
POLICY_LOGITS = 4
"""Copies in a response's log-probs: logits, divided by the temperature, without suppressed tokens, log-softmax."""
DRAWING = 40
"""Bytes for each entry of the vocabulary while a token is drawn: log-probs, and cumulative sums in float64."""


class Shape(NamedTuple):
    """The sizes that decide how large a model's activations are; 0 where the model's config does not say."""

    layers: int
    width: int
    vocabulary: int
    context: int
    kept: int
    """KEPT or KEPT_IN_PIECES."""


def own_rows(rows: int, compute: ComputeSettings) -> int:
    """The most rows of a batch that any one rank gets."""
    return math.ceil(rows / compute.processes)


def model_bytes(parameters: int, shape: Shape, compute: ComputeSettings, lora: LoraSettings | None) -> int:
    """Bytes of a model in training: of all its weights, or of adapters beside frozen weights."""
    if lora is None:
        return trained_bytes(parameters, compute)
    adapters = adapter_parameters(lora, shape)
    return FROZEN * parameters + cast_bytes(parameters, compute) + trained_bytes(adapters, compute)


def trained_bytes(parameters: int, compute: ComputeSettings) -> int:
    """Bytes of parameters in training; several ranks exchange their gradients in a second copy."""
    exchanged = NUMBER * parameters if compute.processes > 1 else 0
    return TRAINED * parameters + exchanged + cast_bytes(parameters, compute)


def cast_bytes(parameters: int, compute: ComputeSettings) -> int:
    """Bytes of the bfloat16 copy of the weights; 0 in float32."""
    return BF16_WEIGHT * parameters if compute.precision == "bf16" else 0


def adapter_parameters(lora: LoraSettings, shape: Shape) -> int:
    """Parameters of adapters on all linear layers, if these have GPT-2's shapes (an inner layer of 4 x the width)."""
    return lora.rank * ADAPTED * shape.width * shape.layers


def kept_bytes(shape: Shape, tokens: int, compute: ComputeSettings, lora: LoraSettings | None = None) -> float:
    """Bytes that all layers keep for ``tokens`` from the forward to the backward pass."""
    share = BF16_KEPT if compute.precision == "bf16" else 1
    holes = 0 if lora is None else ADAPTED_HOLES
    return (share + holes) * NUMBER * shape.kept * shape.layers * shape.width * tokens


def passing_bytes(shape: Shape, tokens: int) -> int:
    """Bytes of a forward pass over ``tokens`` without gradients."""
    return NUMBER * PASSING * shape.width * tokens


def logits_bytes(copies: int, shape: Shape, tokens: int) -> int:
    """Bytes of ``copies`` copies of the logits at ``tokens`` positions."""
    return NUMBER * copies * shape.vocabulary * tokens


def sampling_bytes(shape: Shape, rows: int, sampling: SamplingSettings) -> float:
    """Peak bytes while ``rows`` responses are drawn at once: in reading the prompts, or in drawing the last token."""
    token = CACHE * 2 * NUMBER * shape.layers * shape.width * rows
    reading = token * sampling.prompt_tokens + passing_bytes(shape, rows * sampling.prompt_tokens)
    return max(reading, token * (sampling.prompt_tokens + sampling.response_tokens) + DRAWING * shape.vocabulary * rows)
