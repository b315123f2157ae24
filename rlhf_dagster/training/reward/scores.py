"""Scoring responses with a reward model: a sequence scorer with one output, or one for each of several heads.

Its config holds two values of ours: `score_bias`, which is added to the output (a list where there are several), and
`score_max_tokens`, the length of the inputs that it was trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import holds_adapters
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.models.policies import load_model, load_tokenizer
from rlhf_dagster.training.models.responses import read_responses
from rlhf_dagster.training.models.shared_bases import SharedBases
from rlhf_dagster.training.reward.memory import scored_at_once
from rlhf_dagster.training.runtime.device import precision
from rlhf_dagster.training.scorers.sequence_scorer import AutoSequenceScorer
from rlhf_dagster.training.texts.chats.ends import end_id_of
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, encode_prompts, pad


@dataclass(frozen=True)
class RewardModel:
    """A sequence scorer with its tokenizer, dropout off. Its scores have mean 0 and deviation 1 on SFT samples."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_reward_model(
    folder: Path, compute: ComputeSettings | None = None, bases: SharedBases | None = None
) -> RewardModel:
    """Open a reward model on the device of ``compute``; raises UserError where it cannot be opened.

    One that is adapters shares its weights with all models that are opened with ``bases``.
    """
    shared = bases if holds_adapters(folder) else None
    model = load_model(AutoSequenceScorer, folder, compute or ComputeSettings(), bases=shared, held=True)
    for name in ("score_bias", "score_max_tokens"):
        if not hasattr(model.config, name):
            raise UserError(
                f"{folder}: not a reward model, config.json has no {name}; give a folder that this loop trained."
            )
    return RewardModel(model.eval(), load_tokenizer(folder))


class ScoresAndSpread(NamedTuple):
    """Scores of N responses, and how much the heads disagree on them."""

    mean: Any
    """[N] the score: the mean over heads."""
    spread: Any
    """[N] population standard deviation across heads; 0 with a single head."""


def score_heads(model: PreTrainedModel, batch: PaddedBatch) -> Tensor:
    """Scores [N, H] by each head, read at the last real token of each row of [N, L] ids, padded on either side."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    # In training on several ranks the model is wrapped.
    return with_bias(logits, getattr(model, "module", model).config)


def with_bias(outputs: Tensor, config: PretrainedConfig) -> Tensor:
    """Outputs [..., H] of the heads of a model with this ``config``, as scores in float32."""
    return outputs.float() + torch.as_tensor(getattr(config, "score_bias", 0.0), device=outputs.device)


def score_tokens(model: PreTrainedModel, batch: PaddedBatch) -> Tensor:
    """Scores [N], the mean over heads, read at the last real token of each row of [N, L] ids, padded on either side."""
    return score_heads(model, batch).mean(dim=-1)


def score_tokens_with_spread(model: PreTrainedModel, batch: PaddedBatch) -> ScoresAndSpread:
    """Scores and their spread, both [N] tensors: :func:`score_tokens` with how much the heads disagree."""
    heads = score_heads(model, batch)
    return ScoresAndSpread(heads.mean(dim=-1), heads.std(dim=-1, unbiased=False))


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    max_tokens: int,
    drawn: Sequence[TokenIds | None] | None = None,
) -> list[TokenIds]:
    """Ids of prompt and response as the reward model reads them, at most ``max_tokens`` long.

    Where lengths vary, the row ends with the token that ends responses or with the one that was drawn, so that the
    score is always read there; with a fixed length it is read at the last token. A response that is too long is cut
    before that token. ``drawn`` are the ids that a policy drew, where they are known and of this tokenizer.
    """
    whole = encode_whole_pairs(tokenizer, prompts, responses, sampling, drawn)
    return [pair.cut_to(max_tokens) for pair in whole]


class WholePair(NamedTuple):
    """Prompt and response, whole, and what ends the row that a reward model reads."""

    ids: TokenIds
    end: TokenIds

    def cut_to(self, max_tokens: int) -> TokenIds:
        """At most ``max_tokens``, the end included."""
        return self.ids[: max_tokens - len(self.end)] + self.end


def encode_whole_pairs(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    drawn: Sequence[TokenIds | None] | None = None,
    cuts: Cuts | None = None,
) -> list[WholePair]:
    """Prompts and responses as :func:`encode_pairs` reads them, before responses are cut.

    ``cuts`` counts what is lost of prompts.
    """
    encoded = encode_prompts(tokenizer, prompts, sampling.prompt_tokens, cuts)
    read = read_responses(tokenizer, prompts, responses, sampling, drawn)
    end: TokenIds = [] if sampling.fixed_length else [end_id_of(tokenizer)]
    return [
        WholePair(prompt + one.body, one.end if end and one.end else end)
        for prompt, one in zip(encoded, read, strict=True)
    ]


def require_room(max_tokens: int, sampling: SamplingSettings) -> None:
    """Raise UserError where a sampled response could be longer than the reward model reads.

    The longest has `prompt_tokens` + `response_tokens` tokens, and one more, end-of-text, where lengths vary.
    """
    needed = sampling.prompt_tokens + sampling.response_tokens + (0 if sampling.fixed_length else 1)
    if needed > max_tokens:
        raise UserError(
            f"reward_model.max_tokens is {max_tokens} but prompt and response have up to {needed} tokens; "
            "raise it, or lower sampling.prompt_tokens or sampling.response_tokens."
        )


def score_responses(
    reward_model: Path | RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    compute: ComputeSettings | None = None,
    drawn: Sequence[TokenIds | None] | None = None,
) -> np.ndarray:
    """Normalised scores [N] (float64) of ``responses[i]`` to ``prompts[i]``: mean 0 and deviation 1 on SFT samples.

    Responses are cut to the length that the model was trained on. ``drawn`` are the ids that a policy drew for them, by
    the reward model's tokenizer, where they are known (:func:`~rlhf_dagster.training.models.responses.own_ids`).
    """
    return score_with_spread(reward_model, prompts, responses, sampling, compute, drawn).mean


@torch.no_grad()
def score_with_spread(
    reward_model: Path | RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    compute: ComputeSettings | None = None,
    drawn: Sequence[TokenIds | None] | None = None,
) -> ScoresAndSpread:
    """:func:`score_responses` with their spread across heads, both [N] arrays (float64)."""
    opened = reward_model if isinstance(reward_model, RewardModel) else load_reward_model(reward_model, compute)
    scores = ScoresAndSpread(np.zeros(len(responses)), np.zeros(len(responses)))
    for part, batch in _batches(opened, prompts, responses, sampling, drawn):
        with precision(compute):
            scored = score_tokens_with_spread(opened.model, batch)
        scores.mean[part], scores.spread[part] = scored.mean.cpu().numpy(), scored.spread.cpu().numpy()
    return scores


@torch.no_grad()
def score_by_heads(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    compute: ComputeSettings | None = None,
    drawn: Sequence[TokenIds | None] | None = None,
) -> np.ndarray:
    """The scores [N, H] (float64) of :func:`score_responses` by each of the reward model's H heads."""
    scores = np.zeros((len(responses), int(reward_model.model.config.num_labels or 1)))
    for part, batch in _batches(reward_model, prompts, responses, sampling, drawn):
        with precision(compute):
            scores[part] = score_heads(reward_model.model, batch).cpu().numpy()
    return scores


@torch.no_grad()
def scores_of_part(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    compute: ComputeSettings,
    drawn: Sequence[TokenIds | None],
    part: range,
) -> Iterator[tuple[int, float, list[float]]]:
    """Index, score and the scores by each head of rows in the batches that begin at ``part``, of those of all rows.

    They have the bytes that :func:`score_responses` and :func:`score_by_heads` give them among all.
    """
    for rows, batch in _batches(reward_model, prompts, responses, sampling, drawn, part):
        with precision(compute):
            heads = score_heads(reward_model.model, batch)
        yield from zip(rows, heads.mean(dim=-1).tolist(), heads.tolist(), strict=True)


def _batches(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    drawn: Sequence[TokenIds | None] | None,
    part: range | None = None,
) -> Iterator[tuple[list[int], PaddedBatch]]:
    """Batches on the reward model's device, each with the indices of its rows; those that begin at ``part`` alone.

    Rows of similar length share a batch, which saves padding.
    """
    longest = reward_model.model.config.score_max_tokens
    rows = encode_pairs(reward_model.tokenizer, prompts, responses, sampling, longest, drawn)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    at_once = scored_at_once(max(map(len, rows), default=0))
    for start in range(0, len(rows), at_once):
        if part is not None and start not in part:
            continue
        own = order[start : start + at_once]
        batch = pad([rows[index] for index in own], reward_model.tokenizer.pad_token_id, "right")
        yield own, batch.to(reward_model.device)
