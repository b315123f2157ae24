"""How a model is sampled so that the log-probs recorded on the way are those of its forward pass, found by trying.

What a model keeps of the tokens before differs: keys and values, a window of them, recurrent states, both. Where a
cache is lost on the way, a model goes on from its last token alone and nothing fails; where rows cannot leave it, the
others get each other's past. :func:`drawing_of` tries the ways, the fastest first, once for each opened model.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.training.checkpoints.context import context_of
from rlhf_dagster.training.models.abilities import Drawing, abilities_of
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.low_precision.held_weights import cast_once
from rlhf_dagster.training.models.reading import (
    TRIAL_LENGTHS,
    Unreadable,
    as_in_sampling,
    close,
    outputs_of,
    reading_of,
    trial_rows,
)
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.by_generate import sample_by_generate
from rlhf_dagster.training.sampling.foreign_responses import rows_of
from rlhf_dagster.training.sampling.steps import CachedSteps, Steps, run_steps
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, pad

TRIED_TOKENS = 6
"""Length of the responses that are drawn on trial."""


WAYS = (Drawing(), Drawing(rows_leave=False), Drawing("generate", rows_leave=False), Drawing("whole"))
"""The fastest first."""
_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    NotImplementedError,
    StopIteration,
)
"""What architectures raise where a cache is not of their kind."""


def drawing_of(model: Any) -> Drawing:
    """How ``model`` is sampled: as kept with it, or found out now. Raises Unreadable where no way is right."""
    known = abilities_of(model)
    if known.drawing is None:
        known.drawing = find_drawing(model)
    return known.drawing


def drawn_by(
    drawing: Drawing,
    model: PreTrainedModel,
    prompts: PaddedBatch,
    uniforms: Tensor | None,
    decoding: Decoding,
    value_head: nn.Module | None = None,
) -> Responses:
    """One response to each row of left-padded ``prompts`` [B, Q], in the way of ``drawing``.

    In bfloat16, weights are cast once for all tokens.
    """
    with cast_once(model):
        return _drawn_by(drawing, model, prompts, uniforms, decoding, value_head)


def _drawn_by(
    drawing: Drawing,
    model: PreTrainedModel,
    prompts: PaddedBatch,
    uniforms: Tensor | None,
    decoding: Decoding,
    value_head: nn.Module | None,
) -> Responses:
    if drawing.by == "generate":
        return sample_by_generate(model, prompts, uniforms, decoding, value_head)
    if drawing.by == "whole":
        return run_steps(Steps(model, prompts, decoding), uniforms, value_head)
    return run_steps(CachedSteps(model, prompts, decoding, drawing.rows_leave), uniforms, value_head)


@torch.no_grad()
def find_drawing(model: PreTrainedModel) -> Drawing:
    """The first way whose log-probs are those that the model gives each row alone, without a cache or padding."""
    ways = WAYS if reading_of(model).padding == "left" else WAYS[2:]
    with as_in_sampling(model):
        for drawing in ways:
            if draws_right(model, drawing):
                return drawing
    raise Unreadable(
        f"{type(model).__name__} cannot be sampled here with the log-probabilities of its own forward pass; choose "
        "another architecture."
    )


def draws_right(model: PreTrainedModel, drawing: Drawing) -> bool:
    """Whether responses drawn on trial, of fixed length and with rows that end early, have the right log-probs."""
    prompts, uniforms, decoding = trial(model)[0]
    length = decoding.max_tokens
    try:
        whole = drawn_by(drawing, model, prompts, uniforms, decoding)
        ends = (int(whole.tokens[0, length // 3]), int(whole.tokens[1, length // 2]))
        ending = replace(decoding, fixed_length=False, end_id=ends[0], other_ends=ends[1:])
        ended = drawn_by(drawing, model, prompts, uniforms, ending)
    except _FAILURES:
        return False
    return all(are_right(model, rows_of(prompts), drawn) for drawn in (whole, ended))


class Trial(NamedTuple):
    """What a sampler is asked for on trial."""

    prompts: PaddedBatch
    uniforms: Tensor | None
    decoding: Decoding


def trial(model: PreTrainedModel) -> tuple[Trial, Trial]:
    """Responses of a few tokens to a few prompts of several lengths: drawn, and the likeliest."""
    context = context_of(model.config) or max(TRIAL_LENGTHS) + TRIED_TOKENS
    length = max(1, min(TRIED_TOKENS, context // 2))
    rows = trial_rows(model, [min(size, context - length) for size in TRIAL_LENGTHS])
    uniforms = torch.rand(len(rows), length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decoding = Decoding(1.0, length, fixed_length=True, pad_id=rows[0][0], end_id=-1, suppressed=())
    prompts = pad(rows, decoding.pad_id, "left").to(model.device)
    return Trial(prompts, uniforms.to(model.device), decoding), Trial(prompts, None, decoding)


def are_right(model: PreTrainedModel, rows: list[TokenIds], drawn: Responses) -> bool:
    """Whether log-probs, at temperature 1, are those that ``model`` gives each row alone."""
    for response, log_probs, right in _compared(model, rows, drawn):
        # The differences are held against the spread of the whole distribution, as that of its drawn tokens is chance.
        if not close(right.scatter(1, response[:, None], log_probs[:, None].to(right)), right):
            return False
    return True


def are_likeliest(model: PreTrainedModel, rows: list[TokenIds], drawn: Responses) -> bool:
    """Whether each token is the likeliest that ``model`` gives its row alone, or as likely but for rounding."""
    for response, _, right in _compared(model, rows, drawn):
        if not close(right.scatter(1, response[:, None], right.max(dim=-1, keepdim=True).values), right):
            return False
    return True


def _compared(
    model: PreTrainedModel, rows: list[TokenIds], drawn: Responses
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each row: its tokens [T], their log-probs [T], and the right log-probs [T, V]."""
    for row, tokens, mask, log_probs in zip(rows, drawn.tokens, drawn.mask, drawn.log_probs, strict=True):
        response = tokens[mask > 0]
        ids = torch.cat([torch.tensor(row, device=tokens.device), response])[None, :-1]
        logits = outputs_of(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0, -len(response) :]
        yield response, log_probs[mask > 0], logits.float().log_softmax(dim=-1)
