"""The peak memory of training a reward model, before it starts and without torch."""

import math

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.footprint.activations import (
    Graph,
    passing_bytes,
    training_parts,
)
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.footprint.ranks import own_rows
from rlhf_dagster.training.footprint.sampling import sampling_parts
from rlhf_dagster.training.footprint.shape import ModelSizes
from rlhf_dagster.training.footprint.sharding import drawn_whole, learned_in_parts, own_share, read_in_parts
from rlhf_dagster.training.footprint.weights import model_in_training, read_bytes, shares_base, trained_number
from rlhf_dagster.training.input_sizes import model_sizes, responses_at_most, rows_at_most
from rlhf_dagster.training.specs import RewardModelSpec

SCORED_AT_ONCE = 256
"""Most rows in a forward pass where a reward model scores responses."""
SCORED_TOKENS = 64 * SCORED_AT_ONCE
"""Most tokens in such a pass, if it has more than one row."""


def scored_at_once(length: int) -> int:
    """How many rows of at most ``length`` tokens are scored in one forward pass."""
    return max(1, min(SCORED_AT_ONCE, SCORED_TOKENS // max(length, 1)))


def reward_model_memory(spec: RewardModelSpec) -> Parts:
    """Memory at the peak while it learns, with every response as long as the settings allow."""
    model, settings, compute = model_sizes(spec.sft), spec.settings, spec.compute
    labels = min(settings.batch_size, rows_at_most(spec.preferences))
    length, responses = settings.max_tokens, responses_at_most(spec.preferences)
    own = math.ceil(own_rows(labels, compute) / settings.accumulate)
    training = training_parts([Graph(model, own * responses, length)], 0, compute, settings.lora)
    # Every rank scores the normalisation samples, and parts of whole batches of held-out labels.
    scored = math.ceil(labels / settings.accumulate) * responses
    scored = max(scored, min(scored_at_once(length), settings.normalisation_samples))
    scoring = Parts(activations=passing_bytes(model.shape, scored * length, compute))
    scoring += read_in_parts(model, compute, settings.lora)
    held = own_share(model_in_training(model, compute, settings.lora), compute)
    return held + largest(training + learned_in_parts(model, compute, settings.lora), scoring)


def normalisation_memory(spec: RewardModelSpec) -> Parts:
    """Memory at the peak while the SFT policy draws samples that set the scale, beside the new model, before there are
    gradients; nothing where demonstrations set it."""
    if spec.settings.normalisation == "demonstrations":
        return Parts()
    model, settings, sampling, compute = model_sizes(spec.sft), spec.settings, spec.sampling, spec.compute
    drawn = min(sampling.batch_size, settings.normalisation_samples)
    held = own_share(Parts(weights=_both(model, compute, settings.lora)), compute)
    whole = drawn_whole(model, compute, trained=False)
    return held + whole + sampling_parts(model.shape, drawn, sampling, compute)


def _both(model: ModelSizes, compute: ComputeSettings, lora: LoraSettings | None) -> float:
    """Bytes of the weights of SFT policy and new model, which is one on the other's weights where adapters stay and
    models are whole."""
    if lora is None:
        return read_bytes(model, compute) + trained_number(compute) * model.parameters
    return (1 if shares_base(lora, compute) else 2) * read_bytes(model, compute, lora)
