"""What a training takes memory for: weights, what layers keep, logits, keys and values, each in bytes.

Each training adds up its own in the file ``memory.py`` beside it, before it starts and without torch. Against the
measured growth of a CPU process's resident memory, in 29 trainings of all stages, with models of 1 to 90 million
parameters (GPT-2 and Llama shapes), the estimates were 0.8 to 1.15 times what was used.
"""

import math
from typing import NamedTuple

from rlhf_dagster.config.training import ComputeSettings, LoraSettings, SamplingSettings

NUMBER = 4
"""Bytes of a float32, in which weights, gradients, moments and log-probabilities are, whatever the precision."""
TRAINED = 4 * NUMBER
"""Bytes of a parameter that is trained: weight, gradient and Adam's two moments."""
FROZEN = NUMBER
KEPT, KEPT_IN_PIECES = 17, 32
"""Numbers that a layer keeps of each token for its backward pass, in multiples of the width: two inputs and outputs of
norms 4, queries, keys and values 3, attention 2, the inner layer 2 x 4. An activation function that is a formula of
several operations keeps a copy of the inner layer for most of them. The count is that of Korthikanti et al. 2022,
section 4.1, without dropout and with fused attention."""
BF16_KEPT = 2 / 3
"""Share of KEPT where matrix products are in bfloat16: norms and the residual stream stay in float32."""
BF16_WEIGHT = 2
"""Bytes of a parameter's copy in bfloat16, kept from the forward to the backward pass."""
ADAPTED = 16
"""Inputs and outputs of a layer's linear maps, in multiples of the width: 4 of attention's first, 2 of its last, 5 of
each of the inner layer's."""
ADAPTED_HOLES = 0.75
"""Memory that adapters add to KEPT, as a share of it: every map's own output and its adapter's are freed once they are
added, which leaves holes. Of five trainings of 4 and 26 million parameters the shares were 0.7 to 0.8."""
PASSING = 12
"""Numbers of a token, in multiples of the width, that a forward pass without gradients holds: a layer at a time."""
CACHE = 1
"""Memory of the keys and values of sampling over their size: they are written into buffers of full length."""
LOSS_LOGITS = 3
"""Copies of logits in a language-modelling loss: logits and log-softmax, or log-softmax and two gradients."""
POLICY_LOGITS = 4
"""Copies in a response's log-probabilities: logits, at the temperature, without suppressed tokens, log-softmax."""
DRAWING = 40
"""Bytes for each token of the vocabulary while one is drawn: log-probabilities, and their sums in float64."""


class Shape(NamedTuple):
    """What decides the size of a model's activations; 0 for what its config does not say."""

    layers: int
    width: int
    vocabulary: int
    context: int
    kept: int
    """KEPT or KEPT_IN_PIECES."""


def own_rows(rows: int, compute: ComputeSettings) -> int:
    """Most rows that one of the ranks has of a batch."""
    return math.ceil(rows / compute.processes)


def model_bytes(parameters: int, shape: Shape, compute: ComputeSettings, lora: LoraSettings | None) -> int:
    """A model in training: all of it, or adapters beside weights that are only read."""
    if lora is None:
        return trained_bytes(parameters, compute)
    adapters = adapter_parameters(lora, shape)
    return FROZEN * parameters + cast_bytes(parameters, compute) + trained_bytes(adapters, compute)


def trained_bytes(parameters: int, compute: ComputeSettings) -> int:
    """Parameters in training; on several ranks gradients have a copy, in which they are exchanged."""
    exchanged = NUMBER * parameters if compute.processes > 1 else 0
    return TRAINED * parameters + exchanged + cast_bytes(parameters, compute)


def cast_bytes(parameters: int, compute: ComputeSettings) -> int:
    """The copy of weights in bfloat16, where there is one."""
    return BF16_WEIGHT * parameters if compute.precision == "bf16" else 0


def adapter_parameters(lora: LoraSettings, shape: Shape) -> int:
    """Numbers of adapters on all linear layers: on attention's and on two of four times the width, as in GPT-2."""
    return lora.rank * ADAPTED * shape.width * shape.layers


def kept_bytes(shape: Shape, tokens: int, compute: ComputeSettings, lora: LoraSettings | None = None) -> float:
    """What all layers keep of ``tokens`` from the forward to the backward pass."""
    share = BF16_KEPT if compute.precision == "bf16" else 1
    holes = 0 if lora is None else ADAPTED_HOLES
    return (share + holes) * NUMBER * shape.kept * shape.layers * shape.width * tokens


def passing_bytes(shape: Shape, tokens: int) -> int:
    """A forward pass over ``tokens`` without gradients."""
    return NUMBER * PASSING * shape.width * tokens


def logits_bytes(copies: int, shape: Shape, tokens: int) -> int:
    """So many copies of the logits at ``tokens``."""
    return NUMBER * copies * shape.vocabulary * tokens


def sampling_bytes(shape: Shape, rows: int, sampling: SamplingSettings) -> float:
    """Drawing ``rows`` responses at once: keys and values of all tokens, beside the prompts' pass or a token's draw."""
    token = CACHE * 2 * NUMBER * shape.layers * shape.width * rows
    reading = token * sampling.prompt_tokens + passing_bytes(shape, rows * sampling.prompt_tokens)
    return max(reading, token * (sampling.prompt_tokens + sampling.response_tokens) + DRAWING * shape.vocabulary * rows)
