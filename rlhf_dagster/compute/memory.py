"""Whether a training fits into memory, said before it starts. Importing this imports no torch.

Against the measured growth of a CPU process's resident memory, in 29 trainings of all stages, with models of 1 to 90
million parameters (GPT-2 and Llama shapes), the estimates were 0.8 to 1.15 times what was used.
"""

import json
import math
import struct
from pathlib import Path
from typing import NamedTuple

from rlhf_dagster.compute.free_memory import free_memory
from rlhf_dagster.config.training import ComputeSettings, LoraSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, TinyModelSpec

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
IN_PIECES = ("quick_gelu",)
"""Activation functions of several operations (see :mod:`~rlhf_dagster.training.models.fast_layers`)."""
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
SCORED_AT_ONCE = 256
"""Rows in a forward pass of the reward model (`reward_scores.BATCH_SIZE`)."""
LONGEST_WINDOW = 1024
"""Tokens of PPO-ptx's windows (`ppo_setup.LONGEST_WINDOW`)."""
BUFFERS = 60_000_000
"""What libraries take when the first step runs."""
PROCESS = 350_000_000
"""A training process before it trains: Python, PyTorch and Transformers, or CUDA's context on its device."""

Spec = TinyModelSpec | SftSpec | RewardModelSpec | PpoSpec | DpoSpec


class Shape(NamedTuple):
    """What decides the size of a model's activations; 0 for what its config does not say."""

    layers: int
    width: int
    vocabulary: int
    context: int
    kept: int
    """KEPT or KEPT_IN_PIECES."""


def require_memory(spec: Spec) -> None:
    """Raise UserError where a training needs more memory than is free on its device; nothing where that is unknown."""
    free = free_memory(spec.compute)
    needed = required_bytes(spec) * (spec.compute.processes if free.shared else 1)
    if free.bytes is not None and needed > free.bytes:
        stage = type(spec).__name__.removesuffix("Spec")
        raise UserError(
            f"{_STAGES[stage]} needs about {needed / 1e9:.1f} GB and {free.bytes / 1e9:.1f} GB are free on "
            f"{free.where}; {_REMEDIES[stage]}, or take a smaller base model."
        )


_STAGES = {"TinyModel": "Pretraining", "Sft": "SFT", "RewardModel": "Reward-model training", "Ppo": "PPO", "Dpo": "DPO"}
_REMEDIES = {
    "TinyModel": "lower base_model.tiny.batch_size",
    "Sft": "raise sft.accumulate, lower sft.max_tokens",
    "RewardModel": "raise reward_model.accumulate, lower reward_model.max_tokens or sampling.batch_size",
    "Ppo": "raise ppo.accumulate, lower ppo.batch_size or sampling.response_tokens",
    "Dpo": "raise dpo.accumulate, lower sampling.batch_size or sampling.response_tokens",
}
"""What changes the result least comes first."""


def required_bytes(spec: Spec) -> int:
    """An estimate of the peak memory of one training process, in bytes, from settings and checkpoints' headers.

    Weights, gradients, optimiser, and the activations of the stage's largest batch; every sequence is taken to be as
    long as the settings allow.
    """
    process = PROCESS if spec.compute.launch == "process" else 0
    return process + BUFFERS + math.ceil(_peak(spec))


def _peak(spec: Spec) -> float:
    if isinstance(spec, TinyModelSpec):
        return _pretraining(spec)
    if isinstance(spec, SftSpec):
        return _sft(spec)
    if isinstance(spec, DpoSpec):
        return _dpo(spec)
    return _reward_model(spec) if isinstance(spec, RewardModelSpec) else _ppo(spec)


def _pretraining(spec: TinyModelSpec) -> float:
    """On several ranks each trains the whole model on whole batches."""
    tiny = spec.settings
    shape = Shape(tiny.layers, tiny.width, tiny.vocabulary, tiny.context, KEPT)
    layer = 12 * tiny.width**2 + 13 * tiny.width
    parameters = tiny.layers * layer + (tiny.vocabulary + tiny.context + 2) * tiny.width
    tokens = tiny.batch_size * tiny.context
    weights = TRAINED * parameters + _cast_weights(parameters, spec.compute)
    return weights + _kept(shape, tokens, spec.compute) + _logits(LOSS_LOGITS, shape, tokens)


def _sft(spec: SftSpec) -> float:
    shape, parameters = shape_of(spec.model), parameters_of(spec.model)
    rows, parts = min(spec.settings.batch_size, _rows_of(spec.demonstrations)), spec.settings.accumulate
    at_once = (math.ceil(rows / parts), math.ceil(_own(rows, spec.compute) / parts))
    tokens, own_tokens = (count * spec.settings.max_tokens for count in at_once)
    kept = _kept(shape, own_tokens, spec.compute, spec.settings.lora)
    training = kept + _logits(LOSS_LOGITS, shape, own_tokens)
    # Every rank measures the loss before and after training on whole batches.
    measuring = _passing(shape, tokens) + _logits(LOSS_LOGITS, shape, tokens)
    return _weights(parameters, shape, spec.compute, spec.settings.lora) + max(training, measuring)


def _reward_model(spec: RewardModelSpec) -> float:
    shape, parameters = shape_of(spec.sft), parameters_of(spec.sft)
    settings, sampling = spec.settings, spec.sampling
    labels = min(settings.batch_size, _rows_of(spec.preferences))
    length, responses = settings.max_tokens, _responses_of(spec.preferences)
    own = math.ceil(_own(labels, spec.compute) / settings.accumulate)
    kept = _kept(shape, own * responses * length, spec.compute, settings.lora)
    # Every rank scores the normalisation samples, and parts of whole batches of held-out labels.
    scored = math.ceil(labels / settings.accumulate) * responses
    scored = max(scored, min(SCORED_AT_ONCE, settings.normalisation_samples))
    weights = _weights(parameters, shape, spec.compute, settings.lora)
    training = weights + max(kept, _passing(shape, scored * length))
    # The SFT policy is loaded beside the new model to draw those samples, before there are gradients.
    drawn = min(sampling.batch_size, settings.normalisation_samples)
    return max(training, 2 * FROZEN * parameters + _sampling(shape, drawn, sampling))


def _ppo(spec: PpoSpec) -> float:
    shape, settings, sampling, compute = shape_of(spec.start), spec.settings, spec.sampling, spec.compute
    length = sampling.prompt_tokens + sampling.response_tokens
    rows = _own(math.ceil(settings.batch_size / settings.minibatches), compute)
    rows = math.ceil(rows / settings.accumulate)
    # Frozen layers are passed over in training: their states are kept from the rollout.
    trained_layers = shape._replace(layers=shape.layers - min(settings.frozen_layers, shape.layers))
    update = _kept(trained_layers, rows * length, compute, settings.lora)
    update += _logits(POLICY_LOGITS, shape, rows * sampling.response_tokens)
    if settings.value == "separate" and spec.reward_model is not None:
        update += _kept(shape_of(spec.reward_model), rows * length, compute, settings.lora)
    if settings.pretraining_coef:
        # PPO-ptx has a window of text for each episode, in the same backward pass.
        tokens = rows * min(shape.context or LONGEST_WINDOW, LONGEST_WINDOW)
        update += _kept(shape, tokens, compute, settings.lora) + _logits(LOSS_LOGITS, shape, tokens)
    episodes = _own(settings.batch_size, compute)
    judging = max(
        _logits(POLICY_LOGITS, shape, episodes * sampling.response_tokens), _passing(shape, episodes * length)
    )
    trained, frozen = _ppo_parameters(spec, shape)
    others = FROZEN * frozen + (NUMBER * trained if settings.kl_budget is not None else 0)
    others += NUMBER * shape.width * settings.batch_size * length if settings.frozen_layers else 0
    others += _engine(spec, shape)
    # Between updates there are no gradients.
    rollout = (TRAINED - NUMBER) * trained + _sampling(shape, episodes, sampling) + judging
    return others + max(rollout, _trained(trained, compute) + update)


def _engine(spec: PpoSpec, shape: Shape) -> int:
    """vLLM's copy of the policy, and its cache of all responses, which are there while PPO trains."""
    if spec.compute.rollout_backend != "vllm":
        return 0
    number = BF16_WEIGHT if spec.compute.precision == "bf16" else NUMBER
    length = spec.sampling.prompt_tokens + spec.sampling.response_tokens
    cache = 2 * shape.layers * shape.width * spec.settings.batch_size * length
    return number * (parameters_of(spec.start) + cache)


def _ppo_parameters(spec: PpoSpec, shape: Shape) -> tuple[int, int]:
    """Numbers that PPO trains, and numbers that it only reads: policy, value model, reference and reward model."""
    settings, policy, reference = spec.settings, parameters_of(spec.start), parameters_of(spec.sft)
    rewards = 0 if spec.reward_model is None else parameters_of(spec.reward_model)
    values = rewards if settings.value == "separate" else 0
    if settings.lora is not None:
        shared = reference if spec.start == spec.sft else 0
        adapters = _adapters(settings.lora.rank, shape) * (2 if values else 1)
        return adapters, policy + values + reference - shared + rewards
    if settings.frozen_layers:
        layers = policy - min(policy, (shape.vocabulary + shape.context) * shape.width)
        upper = layers - layers * min(settings.frozen_layers, shape.layers) // max(shape.layers, 1)
        return (
            upper + values,
            policy + rewards,
        )  # the reference has its upper layers to itself, the policy's are trained
    return policy + values, reference + rewards


def _adapters(rank: int, shape: Shape) -> int:
    """Numbers of adapters on all linear layers: on attention's and on two of four times the width, as in GPT-2."""
    return rank * 16 * shape.width * shape.layers


def _dpo(spec: DpoSpec) -> float:
    """The reference is the policy before it is trained, so there is one model at any time."""
    shape, parameters = shape_of(spec.sft), parameters_of(spec.sft)
    settings, sampling, compute = spec.settings, spec.sampling, spec.compute
    length, responses = sampling.prompt_tokens + sampling.response_tokens, _responses_of(spec.preferences)
    labels = min(settings.batch_size, _rows_of(spec.preferences))
    own = math.ceil(_own(labels, compute) / settings.accumulate) * responses
    kept = _kept(shape, own * length, compute, settings.lora)
    training = kept + _logits(POLICY_LOGITS, shape, own * sampling.response_tokens)
    # Every rank measures parts of whole batches after training; the reference's log-probs are computed before it.
    read = max(math.ceil(labels / settings.accumulate) * responses, sampling.batch_size)
    reading = _passing(shape, read * length) + _logits(POLICY_LOGITS, shape, read * sampling.response_tokens)
    return _weights(parameters, shape, compute, settings.lora) + max(training, reading)


def _own(rows: int, compute: ComputeSettings) -> int:
    """Most rows that one of the ranks has of a batch."""
    return math.ceil(rows / compute.processes)


def _trained(parameters: int, compute: ComputeSettings) -> int:
    """A model in training; on several ranks gradients have a copy, in which they are exchanged."""
    exchanged = NUMBER * parameters if compute.processes > 1 else 0
    return TRAINED * parameters + exchanged + _cast_weights(parameters, compute)


def _weights(parameters: int, shape: Shape, compute: ComputeSettings, lora: LoraSettings | None) -> int:
    """A model in training: all of it, or adapters beside weights that are only read."""
    if lora is None:
        return _trained(parameters, compute)
    adapters = lora.rank * ADAPTED * shape.width * shape.layers
    return FROZEN * parameters + _cast_weights(parameters, compute) + _trained(adapters, compute)


def _cast_weights(parameters: int, compute: ComputeSettings) -> int:
    return BF16_WEIGHT * parameters if compute.precision == "bf16" else 0


def _kept(shape: Shape, tokens: int, compute: ComputeSettings, lora: LoraSettings | None = None) -> float:
    share = BF16_KEPT if compute.precision == "bf16" else 1
    holes = 0 if lora is None else ADAPTED_HOLES
    return (share + holes) * NUMBER * shape.kept * shape.layers * shape.width * tokens


def _passing(shape: Shape, tokens: int) -> int:
    return NUMBER * PASSING * shape.width * tokens


def _logits(copies: int, shape: Shape, tokens: int) -> int:
    return NUMBER * copies * shape.vocabulary * tokens


def _sampling(shape: Shape, rows: int, sampling: SamplingSettings) -> float:
    token = CACHE * 2 * NUMBER * shape.layers * shape.width * rows
    reading = token * sampling.prompt_tokens + _passing(shape, rows * sampling.prompt_tokens)
    return max(reading, token * (sampling.prompt_tokens + sampling.response_tokens) + DRAWING * shape.vocabulary * rows)


def parameters_of(folder: Path) -> int:
    """Numbers in a checkpoint's safetensors files, from their headers; 0 for what cannot be read."""
    return sum(_numbers_in(file) for file in Path(folder).glob("*.safetensors"))


def shape_of(folder: Path) -> Shape:
    """A checkpoint's shape by its config; one that cannot be read is all 0, and left to the training to refuse."""
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        layers, width, vocabulary, context = (
            next((int(config[name]) for name in group if config.get(name)), 0) for group in _SIZES
        )
        in_pieces = (config.get("activation_function") or config.get("hidden_act")) in IN_PIECES
    except (OSError, ValueError, TypeError, AttributeError):
        return Shape(0, 0, 0, 0, KEPT)
    return Shape(layers, width, vocabulary, context, KEPT_IN_PIECES if in_pieces else KEPT)


_SIZES = (
    ("num_hidden_layers", "n_layer"),
    ("hidden_size", "n_embd"),
    ("vocab_size",),
    ("max_position_embeddings", "n_positions"),
)


def _numbers_in(file: Path) -> int:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, file.stat().st_size)))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return 0


def _rows_of(table: Path) -> int:
    """Rows of a table by its footer: a batch has no more. Without limit where it cannot be read."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(table).num_rows)
    except (OSError, pa.ArrowException):
        return 1 << 31


def _responses_of(preferences: Path) -> int:
    """Most responses that a label compares. A target has a number for each, and is quicker to read."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    try:
        targets = parquet.read_table(preferences, columns=["target"]).column("target")
        return compute.max(compute.list_value_length(targets)).as_py() or 2
    except (OSError, KeyError, pa.ArrowException):
        return 2
