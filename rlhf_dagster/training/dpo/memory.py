"""The peak memory of direct preference optimisation, before it starts and without torch."""

import math

from rlhf_dagster.training.footprint.activations import (
    POLICY_LOGITS,
    Graph,
    head_bytes,
    logits_bytes,
    passing_bytes,
    training_parts,
)
from rlhf_dagster.training.footprint.parts import Parts, largest
from rlhf_dagster.training.footprint.ranks import own_rows
from rlhf_dagster.training.footprint.weights import model_in_training
from rlhf_dagster.training.input_sizes import model_sizes, responses_at_most, rows_at_most
from rlhf_dagster.training.specs import DpoSpec


def dpo_memory(spec: DpoSpec) -> Parts:
    """Memory at the peak. The reference is the policy before it is trained, so there is one model at any time."""
    model, settings, sampling, compute = model_sizes(spec.sft), spec.settings, spec.sampling, spec.compute
    length = sampling.prompt_tokens + sampling.response_tokens
    # Of single responses, those to other prompts are read beside them, without a gradient.
    singles = settings.loss == "kto"
    responses = 2 if singles else responses_at_most(spec.preferences)
    labels = settings.batch_size if singles else min(settings.batch_size, rows_at_most(spec.preferences))
    own = math.ceil(own_rows(labels, compute) / settings.accumulate) * (1 if singles else responses)
    predicted = own * sampling.response_tokens
    logits = logits_bytes(POLICY_LOGITS, model.shape, predicted, compute)
    logits += head_bytes(model, predicted, compute, settings.lora)
    training = training_parts([Graph(model, own, length)], logits, compute, settings.lora)
    # Every rank measures parts of whole batches after training; the reference's log-probs are computed before it.
    read = max(math.ceil(labels / settings.accumulate) * responses, sampling.batch_size)
    reading = Parts(
        activations=passing_bytes(model.shape, read * length, compute),
        logits=logits_bytes(POLICY_LOGITS, model.shape, read * sampling.response_tokens, compute),
    )
    return model_in_training(model, compute, settings.lora) + largest(training, reading)
