"""The peak memory of PPO, before it starts and without torch."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

from rlhf_dagster.training.footprint.activations import (
    Graph,
    head_bytes,
    logits_bytes,
    passing_bytes,
    training_parts,
)
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.footprint.ranks import own_rows
from rlhf_dagster.training.footprint.sampling import sampling_parts, token_cache_bytes
from rlhf_dagster.training.footprint.shape import ModelSizes, Shape
from rlhf_dagster.training.footprint.sharding import drawn_whole, is_divided, learned_in_parts, own_share
from rlhf_dagster.training.footprint.weights import (
    HALF,
    NUMBER,
    gradients,
    read_bytes,
    read_number,
    shares_base,
    trained_number,
    trained_weights,
)
from rlhf_dagster.training.input_sizes import model_sizes
from rlhf_dagster.training.specs import PpoSpec

LONGEST_WINDOW = 1024
"""Tokens of PPO-ptx's windows of text, where a model's context allows as many."""


def ppo_update_memory(spec: PpoSpec) -> Parts:
    """Memory at the peak of an update, with every episode as long as the settings allow."""
    models = _Models(spec)
    return (
        _held(spec, models) + own_share(gradients(models.trained, spec.compute), spec.compute) + _update(spec, models)
    )


def ppo_rollout_memory(spec: PpoSpec) -> Parts:
    """Memory at the peak of a rollout. Between updates there are no gradients."""
    models, trained = _Models(spec), spec.settings.lora is None
    return _held(spec, models) + _rollout(spec, models) + drawn_whole(models.policy, spec.compute, trained)


def _held(spec: PpoSpec, models: "_Models") -> Parts:
    """What is there all the time."""
    held = Parts(weights=models.read) + trained_weights(models.trained, spec.compute)
    return own_share(held, spec.compute) + _beside(spec, models)


@dataclass(frozen=True)
class _Models:
    """The models of a training: policy, value model, reference and reward model."""

    spec: PpoSpec

    @cached_property
    def policy(self) -> ModelSizes:
        return model_sizes(self.spec.start)

    @cached_property
    def reference(self) -> ModelSizes:
        return model_sizes(self.spec.sft)

    @cached_property
    def reward(self) -> ModelSizes | None:
        return None if self.spec.reward_model is None else model_sizes(self.spec.reward_model)

    @cached_property
    def value(self) -> ModelSizes | None:
        """A value model of its own, which begins as the reward model."""
        return self.reward if self.spec.settings.value == "separate" else None

    @cached_property
    def trained(self) -> int:
        """Parameters that are trained."""
        lora = self.spec.settings.lora
        if self.value is None:
            return self.trained_policy
        return self.trained_policy + (self.value.parameters if lora is None else self.value.adapter_parameters(lora))

    @cached_property
    def trained_policy(self) -> int:
        """Parameters of the policy that are trained."""
        lora = self.spec.settings.lora
        return self.policy.parameters - self._below if lora is None else self.policy.adapter_parameters(lora)

    @cached_property
    def read(self) -> float:
        """Bytes of weights that are only read."""
        compute, lora = self.spec.compute, self.spec.settings.lora
        rewards = [self.reward] if self.reward else []
        if lora is None:
            # Policy and reference share the frozen layers; the upper layers of the reference are its own. In parts each
            # has its own of all.
            frozen = NUMBER * self._below if is_divided(compute) else 0
            return frozen + sum(read_bytes(model, compute) for model in (self.reference, *rewards))
        values = [self.value] if self.value else []
        if shares_base(lora, compute):
            others = [self.reference, *rewards]
            kept = sum(model.adapter_parameters(lora) for model in others)
            return read_bytes(self.policy, compute, lora) + NUMBER * kept
        # Without its adapters the policy is the reference.
        others = [] if self.spec.start == self.spec.sft else [self.reference]
        return sum(read_bytes(model, compute, lora) for model in (self.policy, *others, *rewards, *values))

    @cached_property
    def _below(self) -> int:
        """Parameters of the policy's frozen layers, with its embeddings."""
        shape, frozen = self.policy.shape, self.spec.settings.frozen_layers
        if not frozen:
            return 0
        parameters = self.policy.parameters
        layers = parameters - min(parameters, (shape.vocabulary + shape.context) * shape.width)
        return parameters - layers + layers * min(frozen, shape.layers) // max(shape.layers, 1)


def _beside(spec: PpoSpec, models: _Models) -> Parts:
    """What is held beside the models: best weights, their average, those that sampled, frozen layers' states, those of
    episodes that wait for the next update too, vLLM's engine."""
    settings, shape = spec.settings, models.policy.shape
    # While another process samples ahead, the weights that it has; as they are put in, another tensor of each in turn.
    sampled = settings.rollouts_ahead > 0 and spec.compute.rollout_backend == "vllm_server"
    copies = (settings.kl_budget is not None) + (settings.ema_decay is not None) + sampled
    best = NUMBER * models.trained * copies
    states = NUMBER * shape.width * settings.batch_size * _length(spec) if settings.frozen_layers else 0
    states *= 1 + settings.rollouts_ahead
    return own_share(Parts(weights=best), spec.compute) + Parts(activations=states) + _engine(spec, models.policy)


def _engine(spec: PpoSpec, policy: ModelSizes) -> Parts:
    """vLLM's copy of the policy and its cache of all responses, which stay there while PPO trains."""
    if spec.compute.rollout_backend != "vllm":
        return Parts()
    tokens = spec.settings.batch_size * _length(spec)
    return Parts(
        weights=read_number(spec.compute) * policy.parameters,
        cache=token_cache_bytes(policy.shape, spec.compute) * tokens,
    )


def _rollout(spec: PpoSpec, models: _Models) -> Parts:
    """Sampling episodes, then reading them for log-probabilities and scores.

    At most `sampling.batch_size` are done at once where this package samples; another program is given all of them.
    """
    compute, shape = spec.compute, models.policy.shape
    episodes = own_rows(spec.settings.batch_size, compute)
    episodes = min(episodes, spec.sampling.batch_size) if compute.rollout_backend == "native" else episodes
    reading = Parts(logits=logits_bytes(shape, episodes * spec.sampling.response_tokens, compute))
    judging = Parts(activations=passing_bytes(_judge(models), episodes * _length(spec), compute))
    return sampling_parts(shape, episodes, spec.sampling, compute) + largest(reading, judging) + _cast(spec, models)


def _judge(models: _Models) -> Shape:
    """The larger of the models that read whole responses."""
    shapes = [models.reference.shape, *([models.reward.shape] if models.reward else [])]
    return max(shapes, key=lambda shape: shape.width)


def _cast(spec: PpoSpec, models: _Models) -> Parts:
    """The policy's copy in bfloat16, where its weights are trained in float32, from which responses are drawn."""
    compute = spec.compute
    copied = compute.precision == "bf16" and trained_number(compute) == NUMBER
    copy = HALF * models.trained_policy if copied else 0
    return Parts(gathered=copy) if is_divided(compute) else Parts(weights=copy)


def _update(spec: PpoSpec, models: _Models) -> Parts:
    """A backward pass over the largest part of a minibatch, with windows for each episode in PPO-ptx, or that of the
    value model before it."""
    settings, compute, policy = spec.settings, spec.compute, models.policy
    rows = own_rows(math.ceil(settings.batch_size / settings.minibatches), compute)
    rows, length = math.ceil(rows / settings.accumulate), _length(spec)
    predicted, window = rows * spec.sampling.response_tokens, _window(spec, policy)
    texts = rows * settings.pretraining_examples
    graphs = [Graph(_without_frozen(spec, policy), rows, length)]
    graphs += [Graph(policy, texts, window)] if window else []
    logits = logits_bytes(policy.shape, predicted, compute)
    logits += logits_bytes(policy.shape, texts * window, compute)
    logits += head_bytes(policy, predicted, compute, settings.lora)
    updated = training_parts(graphs, logits, compute, settings.lora) + learned_in_parts(policy, compute, settings.lora)
    if models.value is None:
        return updated
    valued = training_parts([Graph(models.value, rows, length)], 0, compute, settings.lora)
    return largest(updated, valued + learned_in_parts(models.value, compute, settings.lora))


def _window(spec: PpoSpec, policy: ModelSizes) -> int:
    """Tokens of a window of text, one for each row; 0 without PPO-ptx."""
    return min(policy.shape.context or LONGEST_WINDOW, LONGEST_WINDOW) if spec.settings.pretraining_coef else 0


def _without_frozen(spec: PpoSpec, policy: ModelSizes) -> ModelSizes:
    """The policy as an update computes it: the states of frozen layers are kept from the rollout."""
    shape = policy.shape
    layers = shape.layers - min(spec.settings.frozen_layers, shape.layers)
    return replace(policy, shape=shape._replace(layers=layers))


def _length(spec: PpoSpec) -> int:
    return spec.sampling.prompt_tokens + spec.sampling.response_tokens
