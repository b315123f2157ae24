"""What PPO's responses are worth: a reward model on token ids, or anything that reads text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.reward.scores import RewardModel, encode_pairs, score_heads
from rlhf_dagster.training.rewards.text_reward import TextReward
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, decode_responses, pad

Score = Callable[[PaddedBatch], Tensor]
"""Scores [B], or [B, K] of an ensemble of K, of prompts (padded on the left) and responses (padded on the right) in one
batch of ids [B, L]."""


class Reward(NamedTuple):
    score: Tensor
    """[B]."""
    spread: Tensor | None
    """[B] deviation across an ensemble; None without one."""
    parts: Tensor | None = None
    """[B, P] what each of P rewards adds to the score; None where there is one alone."""


def combined(scores: Tensor, spread_coef: float) -> Reward:
    """The mean of an ensemble's scores [B, K] minus ``spread_coef`` times their deviation; scores [B] as they are.

    Uncertainty-weighted optimisation (Coste et al. 2024, arXiv 2310.02743), with the deviation instead of the variance.
    """
    if scores.dim() == 1:
        return Reward(scores.float(), None)
    spread = scores.float().std(dim=1, correction=0)
    return Reward(scores.float().mean(dim=1) - spread_coef * spread, spread)


def ensemble_scores(model: PreTrainedModel, batch: PaddedBatch) -> Tensor:
    """Scores [B] read at the last token of each row, or [B, K] of a reward model with K > 1 heads."""
    scores = score_heads(model, batch)
    return scores[:, 0] if scores.shape[1] == 1 else scores


@dataclass(frozen=True)
class TextScore:
    """Scores sampled token ids by their text."""

    tokenizer: PreTrainedTokenizerBase
    """The policy's tokenizer."""
    reward: TextReward

    def __call__(self, texts: Sequence[Prompt], prompts: PaddedBatch, tokens: Tensor, mask: Tensor) -> Tensor:
        """Scores [B] or [B, K] of responses [B, T] to ``prompts`` [B, Q], which are ``texts``."""
        asked, given = _kept(*prompts), _kept(tokens, mask)
        return self.reward(list(texts), decode_responses(self.tokenizer, asked, given)).to(tokens.device)


@dataclass(frozen=True)
class WeightedSum:
    """Several rewards, each times its weight, added up."""

    names: Sequence[str]
    weights: Sequence[float]
    scores: Sequence[Score | TextScore]

    def reward(self, read: Callable[[Score | TextScore], Tensor], spread_coef: float) -> Reward:
        """The sum of what ``read`` gives for each score, [B] or [B, K]; a model's K heads stay an ensemble."""
        scores = [weight * read(score).float() for weight, score in zip(self.weights, self.scores, strict=True)]
        columns = [score if score.dim() == 2 else score[:, None] for score in scores]
        total = torch.stack(torch.broadcast_tensors(*columns)).sum(dim=0)
        parts = torch.stack([column.mean(dim=1) for column in columns], dim=1)
        return combined(total if total.shape[1] > 1 else total[:, 0], spread_coef)._replace(parts=parts)

    def means(self, parts: Tensor) -> dict[str, Tensor]:
        """The mean of what each reward adds, ``parts`` [B, P], by name."""
        return {f"reward_from_{name}": parts[:, index].mean() for index, name in enumerate(self.names)}


def _kept(ids: Tensor, mask: Tensor) -> list[TokenIds]:
    """The ids [B, T] of each row where ``mask`` [B, T] is 1."""
    return [row[keep].tolist() for row, keep in zip(ids, mask.bool(), strict=True)]


def by_text(reward_model: RewardModel, sampling: SamplingSettings) -> TextReward:
    """The reward model on text, for a policy with another tokenizer: it encodes prompt and response itself.

    What is longer than the reward model reads is cut (:func:`~rlhf_dagster.training.reward.scores.encode_pairs`).
    """
    model, tokenizer = reward_model.model, reward_model.tokenizer

    def reward(prompts: list[Prompt], responses: list[str]) -> Tensor:
        rows = encode_pairs(tokenizer, prompts, responses, sampling, model.config.score_max_tokens)
        return ensemble_scores(model, pad(rows, tokenizer.pad_token_id, "right").to(model.device))

    return reward
