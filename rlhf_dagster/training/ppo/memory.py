"""The peak memory of PPO, before it starts and without torch."""

import math

from rlhf_dagster.training.footprint import (
    BF16_WEIGHT,
    FROZEN,
    LOSS_LOGITS,
    NUMBER,
    POLICY_LOGITS,
    TRAINED,
    Shape,
    adapter_parameters,
    kept_bytes,
    logits_bytes,
    own_rows,
    passing_bytes,
    sampling_bytes,
    trained_bytes,
)
from rlhf_dagster.training.input_sizes import parameters_of, shape_of
from rlhf_dagster.training.specs import PpoSpec

LONGEST_WINDOW = 1024
"""Tokens of PPO-ptx's windows of text, where a model's context allows as many."""


def ppo_memory(spec: PpoSpec) -> float:
    """Peak memory in bytes, in the rollout or in an update, with every episode as long as the settings allow."""
    shape = shape_of(spec.start)
    trained, frozen = _parameters(spec, shape)
    # Between updates there are no gradients.
    rollout = (TRAINED - NUMBER) * trained + _rollout(spec, shape)
    update = trained_bytes(trained, spec.compute) + _update(spec, shape)
    return FROZEN * frozen + _beside(spec, shape, trained) + max(rollout, update)


def _parameters(spec: PpoSpec, shape: Shape) -> tuple[int, int]:
    """How many parameters PPO trains, and how many it only reads: policy, value model, reference and reward model."""
    settings, policy, reference = spec.settings, parameters_of(spec.start), parameters_of(spec.sft)
    rewards = 0 if spec.reward_model is None else parameters_of(spec.reward_model)
    values = rewards if settings.value == "separate" else 0
    if settings.lora is not None:
        shared = reference if spec.start == spec.sft else 0
        adapters = adapter_parameters(settings.lora, shape) * (2 if values else 1)
        return adapters, policy + values + reference - shared + rewards
    if settings.frozen_layers:
        layers = policy - min(policy, (shape.vocabulary + shape.context) * shape.width)
        upper = layers - layers * min(settings.frozen_layers, shape.layers) // max(shape.layers, 1)
        # Policy and reference share the frozen layers; the upper layers of the reference are its own.
        return upper + values, policy + rewards
    return policy + values, reference + rewards


def _beside(spec: PpoSpec, shape: Shape, trained: int) -> int:
    """Bytes held all the time beside the models: best weights, their average, frozen layers' states, vLLM's engine."""
    settings = spec.settings
    best = NUMBER * trained * ((settings.kl_budget is not None) + (settings.ema_decay is not None))
    states = NUMBER * shape.width * settings.batch_size * _length(spec) if settings.frozen_layers else 0
    return best + states + _engine(spec, shape)


def _engine(spec: PpoSpec, shape: Shape) -> int:
    """Bytes of vLLM's copy of the policy and its cache of all responses, which stay there while PPO trains."""
    if spec.compute.rollout_backend != "vllm":
        return 0
    number = BF16_WEIGHT if spec.compute.precision == "bf16" else NUMBER
    cache = 2 * shape.layers * shape.width * spec.settings.batch_size * _length(spec)
    return number * (parameters_of(spec.start) + cache)


def _rollout(spec: PpoSpec, shape: Shape) -> float:
    """Bytes of sampling all episodes, then reading them for log-probabilities and scores."""
    episodes = own_rows(spec.settings.batch_size, spec.compute)
    reading = logits_bytes(POLICY_LOGITS, shape, episodes * spec.sampling.response_tokens)
    judging = max(reading, passing_bytes(shape, episodes * _length(spec)))
    return sampling_bytes(shape, episodes, spec.sampling) + judging


def _update(spec: PpoSpec, shape: Shape) -> float:
    """Bytes of a backward pass over the largest part of a minibatch, with a window for each episode in PPO-ptx."""
    settings, compute = spec.settings, spec.compute
    rows = own_rows(math.ceil(settings.batch_size / settings.minibatches), compute)
    rows = math.ceil(rows / settings.accumulate)
    # Frozen layers compute nothing in training: their states are kept from the rollout.
    trained_layers = shape._replace(layers=shape.layers - min(settings.frozen_layers, shape.layers))
    update = kept_bytes(trained_layers, rows * _length(spec), compute, settings.lora)
    update += logits_bytes(POLICY_LOGITS, shape, rows * spec.sampling.response_tokens)
    if settings.value == "separate" and spec.reward_model is not None:
        update += kept_bytes(shape_of(spec.reward_model), rows * _length(spec), compute, settings.lora)
    if settings.pretraining_coef:
        tokens = rows * min(shape.context or LONGEST_WINDOW, LONGEST_WINDOW)
        update += kept_bytes(shape, tokens, compute, settings.lora) + logits_bytes(LOSS_LOGITS, shape, tokens)
    return update


def _length(spec: PpoSpec) -> int:
    return spec.sampling.prompt_tokens + spec.sampling.response_tokens
