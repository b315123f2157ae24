"""What PPO's responses are worth: a reward model on token ids, or anything that reads text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt, messages_of
from rlhf_dagster.training.functions import load_function
from rlhf_dagster.training.reward.scores import RewardModel, encode_pairs, score_heads
from rlhf_dagster.training.runtime.distributed import first_text
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, decode_responses, pad

Score = Callable[[PaddedBatch], Tensor]
"""Scores [B], or [B, K] of an ensemble of K, of prompts (padded on the left) and responses (padded on the right) in one
batch of ids [B, L]."""
TextReward = Callable[[list[Prompt], list[str]], Tensor]
"""Scores [B], or [B, K], of prompts and their responses."""


class Reward(NamedTuple):
    score: Tensor
    """[B]."""
    spread: Tensor | None
    """[B] deviation across an ensemble; None without one."""


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


def load_reward_function(name: str) -> TextReward:
    """The function that ``name`` refers to (:func:`load_function`); all ranks check the result of every call together.

    It is called with prompts and responses as texts, and, if it has a parameter `messages`, with a list that has the
    messages of each prompt that is a chat, as dictionaries with `role` and `content`, and None for any other.

    Raises:
        UserError: the function cannot be imported, or a call raises or gives not one finite number for each response.
    """
    called = load_function(name, "reward_function")
    wants_messages = _has_parameter(called, "messages")

    def reward(prompts: list[Prompt], responses: list[str]) -> Tensor:
        extra = {"messages": [messages_of(prompt) for prompt in prompts]} if wants_messages else {}
        values, problem = _call(partial(called, **extra), [str(prompt) for prompt in prompts], responses)
        # Where one rank raised alone, the others would wait for it.
        if problem := first_text(problem):
            raise UserError(f"reward_function {name!r} {problem}.")
        return torch.tensor(values, dtype=torch.float32)

    return reward


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in signature(function).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return False


def _call(function: Callable[..., Any], prompts: list[str], responses: list[str]) -> tuple[list[float], str]:
    """The function's values and what is wrong with them, empty if nothing is."""
    try:
        values = [float(value) for value in function(prompts, responses)]
    except Exception as error:  # somebody else's code
        return [], f"raised {type(error).__name__}: {str(error).split(chr(10))[0]}".rstrip(".: ")
    if len(values) != len(responses):
        return [], f"gave {len(values)} numbers for {len(responses)} responses; it must give one for each"
    wrong = next((index for index, value in enumerate(values) if not math.isfinite(value)), None)
    if wrong is not None:
        return [], f"gave {values[wrong]} for the response {responses[wrong][:60]!r}; it must give finite numbers"
    return values, ""
