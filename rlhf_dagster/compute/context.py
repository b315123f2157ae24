"""Whether a model's context holds the sequences of a training, said before it starts, without torch."""

from collections.abc import Iterator
from pathlib import Path

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.training.input_sizes import beyond_context, shape_of
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec

SAMPLED = "sampling.prompt_tokens + sampling.response_tokens"


def require_lengths(spec: Spec) -> None:
    """Raise UserError where a sequence of the settings is longer than the model's context, as its config gives it.

    The training says the same of the opened model, which knows what a config leaves out.
    """
    for folder, needed, what in _lengths(spec):
        context = shape_of(folder).context
        if context and needed > context:
            raise beyond_context(what, needed, context)


def _lengths(spec: Spec) -> Iterator[tuple[Path, int, str]]:
    """Models, the longest sequence that each reads, and the settings that say so."""
    match spec:
        case SftSpec():
            yield spec.model, spec.settings.max_tokens, "sft.max_tokens"
            yield spec.model, _sampled(spec.sampling), SAMPLED
        case RewardModelSpec():
            yield spec.sft, spec.settings.max_tokens, "reward_model.max_tokens"
            yield spec.sft, _sampled(spec.sampling), SAMPLED
        case PpoSpec():
            yield spec.start, _sampled(spec.sampling), SAMPLED
        case DpoSpec():
            yield spec.sft, _sampled(spec.sampling), SAMPLED


def _sampled(sampling: SamplingSettings) -> int:
    return sampling.prompt_tokens + sampling.response_tokens
