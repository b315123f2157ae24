"""Bytes of activations: what layers keep for the backward pass or hold in a pass without one, and logits."""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.footprint.shape import Activation, ModelSizes, Shape
from rlhf_dagster.training.footprint.weights import HALF, NUMBER, trained_number

INNER: dict[Activation, float] = {"plain": 2, "relu": 1, "in_pieces": 2 + 15 / 4}
"""Copies of the inner layer that are kept where it is not gated, by its activation function; a gate and its product
are two more."""
COPIES = 3
"""Of logits, in a language-modelling loss (logits and log-softmax, or log-softmax and two gradients) and in a
response's log-probs (logits, those of the policy, log-softmax)."""
MIB = 1 << 20
HOLES, HEAP = 0.75, 32 * MIB
"""Memory that adapters add on a CPU to what a layer keeps, as a share of it: the outputs of a linear map and of its
adapter are freed once their sum is computed, which leaves holes among what is kept. Measured in ten trainings of 4 to
30 million parameters, the shares were 0.7 to 0.8. Blocks from 32 MiB on are not on the C library's heap, and leave
none; a GPU's allocator fills them, and with a base in codes memory is given back at once
(:func:`~rlhf_dagster.training.runtime.freeing.return_what_is_freed`)."""


class Graph(NamedTuple):
    """A forward pass whose backward pass is still to come."""

    model: ModelSizes
    rows: int
    length: int
    """Of a row, in tokens."""


def kept_bytes(graphs: Sequence[Graph], compute: ComputeSettings, lora: LoraSettings | None = None) -> float:
    """Bytes that models keep of what they have read until one backward pass goes through all ``graphs``.

    With gradient checkpointing these are each layer's input, and everything of the one layer that is computed again.
    Copies of trained weights in bfloat16 are kept too; quantised weights are unpacked one at a time.
    """
    again = max(_of_layers(graph, compute, lora, 1) for graph in graphs) if compute.gradient_checkpointing else 0
    return kept_at_loss(graphs, compute, lora) + again


def kept_at_loss(graphs: Sequence[Graph], compute: ComputeSettings, lora: LoraSettings | None = None) -> float:
    """Those of them that are there while there are logits: with gradient checkpointing no layer is computed again."""
    if compute.gradient_checkpointing:
        return sum(_inputs(graph, compute, lora) for graph in graphs)
    return sum(_of_layers(graph, compute, lora, graph.model.shape.layers) for graph in graphs)


def training_parts(
    graphs: Sequence[Graph], logits: float, compute: ComputeSettings, lora: LoraSettings | None = None
) -> Parts:
    """A backward pass through all ``graphs``: most is needed where it begins, at the ``logits``, or in the last layer,
    where gradients of the inner layer stand beside all that is kept."""
    at_loss = Parts(activations=kept_at_loss(graphs, compute, lora), logits=logits)
    back = max(_gradients_of_inner(graph, compute) for graph in graphs)
    return largest(at_loss, Parts(activations=kept_bytes(graphs, compute, lora) + back))


def _gradients_of_inner(graph: Graph, compute: ComputeSettings) -> int:
    """Bytes of the gradients of an activation function's input and output, and of a gate."""
    shape = graph.model.shape
    return graph.rows * graph.length * _number(compute) * (3 if shape.gated else 2) * shape.inner


def _inputs(graph: Graph, compute: ComputeSettings, lora: LoraSettings | None) -> int:
    """Bytes of what the layers read."""
    shape = graph.model.shape
    return graph.rows * graph.length * shape.layers * shape.width * _residual(compute, lora)


def _of_layers(graph: Graph, compute: ComputeSettings, lora: LoraSettings | None, layers: int) -> float:
    """Bytes of all that so many layers keep, weights in another precision too."""
    model, share = graph.model, layers / max(graph.model.shape.layers, 1)
    kept = layers * graph.rows * graph.length * _kept_by_layer(model.shape, graph.length, compute, lora)
    kept *= 1 + _holes(graph, compute, lora)
    trained = model.parameters if lora is None else model.adapter_parameters(lora)
    casts = share * trained * HALF if compute.precision == "bf16" and trained_number(compute) == NUMBER else 0
    unpacked = model.largest_map * _number(compute) if lora is not None and lora.base_bits else 0
    return kept + casts + unpacked


def _holes(graph: Graph, compute: ComputeSettings, lora: LoraSettings | None) -> float:
    on_heap = _number(compute) * graph.rows * graph.length * graph.model.shape.width < HEAP
    return HOLES if lora is not None and not lora.base_bits and compute.device == "cpu" and on_heap else 0


def _kept_by_layer(shape: Shape, length: int, compute: ComputeSettings, lora: LoraSettings | None) -> float:
    """Bytes that a layer keeps of one token of ``length``, as counted in the graphs of GPT-2 and of Llama.

    Both norms keep their input, RMSNorm in float32 and, where its weight is trained, normalised too. What linear maps
    read is one tensor for all that read it, but in bfloat16 each map makes its own copy. Fused attention keeps queries,
    keys and values for all heads and its output, and each layer its own mask of the tokens that a token sees.
    """
    number, residual, adapted = _number(compute), _residual(compute, lora), lora is not None
    # What an adapter reads goes through float32, so that it is another tensor than what its layer reads.
    apart = adapted and number == HALF
    norm = residual + (NUMBER - residual + (0 if adapted else residual)) * shape.root_mean_square
    read = number * (shape.readers if apart or number < residual else 2)
    attention = number * (4 + apart + 2 * shape.packed) * shape.queries
    copies = INNER[shape.activation] + 2 * shape.gated + (apart and shape.activation == "relu")
    inner = number * copies * shape.inner
    inside = number * shape.adapted * lora.rank if lora is not None else 0
    return (2 * norm + read) * shape.width + attention + inner + number * length + inside


def passing_bytes(shape: Shape, tokens: int, compute: ComputeSettings) -> float:
    """Bytes of a forward pass over ``tokens`` without gradients, which holds one layer."""
    inner = (3 if shape.gated else 2) * shape.inner
    return tokens * (NUMBER * 4 * shape.width + _number(compute) * max(inner, 4 * shape.queries))


def reading_parts(shape: Shape, tokens: int, predicted: int, compute: ComputeSettings) -> Parts:
    """Such a pass, and logits at ``predicted`` of its tokens: when there are logits, states are left of the layers."""
    states = NUMBER * shape.width * tokens
    logits = Parts(activations=states, logits=logits_bytes(shape, predicted, compute))
    return largest(Parts(activations=passing_bytes(shape, tokens, compute)), logits)


def logits_bytes(shape: Shape, tokens: int, compute: ComputeSettings) -> float:
    """Bytes of logits and their copies at ``tokens`` positions, or at as many as are computed at once."""
    at_once = max(1, compute.logits_mib * MIB // (NUMBER * max(shape.vocabulary, 1)))
    return NUMBER * COPIES * shape.vocabulary * min(tokens, at_once)


def head_bytes(model: ModelSizes, tokens: int, compute: ComputeSettings, lora: LoraSettings | None) -> float:
    """Bytes of the output head's gradient of one piece, where its logits are computed in pieces and it is trained."""
    shape = model.shape
    whole = NUMBER * shape.vocabulary * tokens
    return 0 if lora is not None or whole <= compute.logits_mib * MIB else NUMBER * shape.vocabulary * shape.width


def _number(compute: ComputeSettings) -> int:
    """Bytes of a number that a matrix product reads or writes."""
    return HALF if compute.precision == "bf16" else NUMBER


def _residual(compute: ComputeSettings, lora: LoraSettings | None) -> int:
    """Bytes of a number of the residual stream: float32, but where the embedding itself is trained in bfloat16."""
    half = compute.precision == "bf16" and lora is None and trained_number(compute) == HALF
    return HALF if half else NUMBER
