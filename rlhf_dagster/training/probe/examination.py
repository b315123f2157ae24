"""One examination of a model for all stages: what each will do with it, or why it cannot."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.lora import adapters_merge
from rlhf_dagster.training.models.own_adapters import own_adapters
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.models.reading import reading_of
from rlhf_dagster.training.ppo.freezing import frozen_layers_work
from rlhf_dagster.training.sampling.drawing import drawing_of
from rlhf_dagster.training.sampling.transformers_backend import TransformersRollouts
from rlhf_dagster.training.scorers.sequence_scorer import reward_model_refusal, scorer_class
from rlhf_dagster.training.sft.packing_check import packing_refusal
from rlhf_dagster.training.texts.chats.template import template_findings


@dataclass(frozen=True)
class Examined:
    """What was found about one thing that a loop does with a model."""

    about: str
    said: str
    """How it is done, or the sentence that says why it cannot be."""
    can: bool = True
    needed: bool = False
    """Whether no loop can do without."""


def examine(policy: Policy) -> Iterator[Examined]:
    """What each stage does with ``policy``, those that every loop needs first; nothing follows one that fails."""
    for answer in _needed(policy.model):
        yield answer
        if not answer.can:
            return
    yield from _optional(policy)


def require_usable(policy: Policy) -> None:
    """Raise UserError where a loop cannot be run on ``policy``; what was found is kept with its model."""
    wrong = next((answer for answer in _needed(policy.model) if not answer.can), None)
    if wrong is not None:
        raise UserError(wrong.said)


def _needed(model: PreTrainedModel) -> Iterator[Examined]:
    yield _answer("rows of a batch", lambda: _READ[reading_of(model).padding])
    yield _answer("sampling", lambda: _sampling(model))
    refusal = reward_model_refusal(model)
    yield Examined("reward model", refusal or scorer_class(model.config).__name__, not refusal, needed=True)


def _optional(policy: Policy) -> Iterator[Examined]:
    model = policy.model
    if (own := own_adapters(model)) is not None:
        yield Examined("adapters (lora)", f"on {own.base.name}; trainings go on with them")
    else:
        yield _choice("adapters (lora)", adapters_merge(model), "trained beside the weights and merged")
        yield _choice("ppo.frozen_layers", frozen_layers_work(model, 1), "computed once for policy and reference")
    yield _choice("sft.packing", packing_refusal(model), "texts of one row do not see each other")
    yield _batching(model)
    for finding in template_findings(policy.tokenizer):
        yield Examined("sft.chat", finding.sentence, not finding.is_fatal)


_READ = {
    "left": "padded on the left, which changes no number",
    "right": "moved to the left edge, as the model does not pass over padding on the left",
}


def _sampling(model: PreTrainedModel) -> str:
    drawing = drawing_of(model)
    if drawing.by == "cache":
        ended = "leave" if drawing.rows_leave else "stay until the last one ends"
        return f"with a cache; rows that have ended {ended}"
    if drawing.by == "generate":
        return "by the model's own `generate`, rows of one length together"
    return "the whole text is read again for each token, which is slow for long ones"


def _batching(model: PreTrainedModel) -> Examined:
    backend = TransformersRollouts(ComputeSettings(rollout_backend="transformers"), rows=8)
    about, right = "rollouts by transformers", "continuous batching samples from the model, greedily too"
    try:
        backend.require_right(model)
    except UserError as error:
        return Examined(about, str(error), can=False)
    return Examined(about, right)


def _choice(about: str, refusal: str, right: str) -> Examined:
    return Examined(about, refusal or right, not refusal)


def _answer(about: str, find: Callable[[], Any]) -> Examined:
    try:
        return Examined(about, find(), needed=True)
    except UserError as error:
        return Examined(about, str(error), can=False, needed=True)
