"""The linear heads of a reward model: how they begin, and the gain and bias that give their scores a fixed meaning."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.adapted_layers import ADAPTER
from rlhf_dagster.training.models.sharding.weights import reshard
from rlhf_dagster.training.reward.memory import scored_at_once
from rlhf_dagster.training.reward.scores import RewardModel, score_heads
from rlhf_dagster.training.runtime.sharding.tensors import sharded_like
from rlhf_dagster.training.texts.tokens import TokenIds, pad

SMALLEST_SPREAD = 1e-6
"""A deviation of scores below this share of the largest one is rounding in float32."""


def linear_head(model: PreTrainedModel) -> torch.nn.Linear:
    """The layer [H, d] that reads a score for each head; raises UserError where the architecture has none."""
    head = getattr(model, "score", None)
    if isinstance(head, ModulesToSaveWrapper):
        head = head.modules_to_save[ADAPTER]  # the copy that is trained beside adapters
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        raise UserError(
            f"{type(model).__name__} has no linear `score` head; choose a causal language model as base model."
        )
    return head


@torch.no_grad()
def draw_heads(model: PreTrainedModel) -> None:
    """New weights ~ N(0, 1 / (d + 1)), no bias (Stiennon et al. 2020, appendix B.1).

    Drawn by the CPU's generator, so that a seed means the same heads on every device.
    """
    head = linear_head(model)
    std = 1 / math.sqrt(head.weight.shape[1] + 1)
    head.weight.copy_(torch.empty(head.weight.shape, device="cpu").normal_(std=std))


def normalise(reward_model: RewardModel, reference: Sequence[TokenIds], each_head: bool = False) -> float:
    """Rescale so that scores of ``reference`` have mean 0 and population deviation 1; returns the deviation before.

    Ziegler et al. 2019, lm-human-preferences `train_reward.py`. The gain is folded into the heads' weights and the bias
    kept in the config as `score_bias`, so that the folder stays a plain checkpoint.

    Every head gets mean 0. All heads share one gain, which gives their mean deviation 1, so that they still differ by
    what they have learned. With ``each_head`` every head gets deviation 1 by a gain of its own, and the mean of the
    heads' former deviations is returned.

    Raises UserError where all scores are the same but for rounding, or are not finite: there is no scale in them.
    """
    heads = _finite_heads_of(reward_model, reference)
    spread = heads.std(axis=1) if each_head else heads.mean(axis=0).std(keepdims=True)
    _require_spread(heads, spread, reference)
    gain = 1 / spread
    reshard(reward_model.model)
    weight = linear_head(reward_model.model).weight
    rows = torch.from_numpy(gain).to(weight.device, weight.dtype).expand(weight.shape[0])[:, None].contiguous()
    with torch.no_grad():
        weight.mul_(sharded_like(rows, weight))
    _set_bias(reward_model, gain * (np.atleast_1d(reward_model.model.config.score_bias) - heads.mean(axis=1)))
    return float(spread.mean())


def center(reward_model: RewardModel, reference: Sequence[TokenIds]) -> None:
    """Shift so that every head's scores of ``reference`` have mean 0; their deviation stays what training has made it.

    InstructGPT, section 3.5, where ``reference`` are demonstrations: the loss compares scores, and so fixes their
    deviation and not their mean. Raises UserError where scores are not finite.
    """
    heads = _finite_heads_of(reward_model, reference)
    _set_bias(reward_model, np.atleast_1d(reward_model.model.config.score_bias) - heads.mean(axis=1))


def _set_bias(reward_model: RewardModel, bias: np.ndarray) -> None:
    """Keep the biases [H] of the heads in the config."""
    reward_model.model.config.score_bias = bias.tolist() if len(bias) > 1 else float(bias[0])


def _finite_heads_of(reward_model: RewardModel, reference: Sequence[TokenIds]) -> np.ndarray:
    """Scores [H, N] (float64); raises UserError where they are not finite."""
    heads = _score_heads_of(reward_model, reference)
    if not np.isfinite(heads).all():
        raise UserError(
            "The reward model's scores of the normalisation samples are not finite: it diverged; lower "
            "reward_model.learning_rate."
        )
    return heads


def _require_spread(heads: np.ndarray, spread: np.ndarray, reference: Sequence[TokenIds]) -> None:
    if spread.min() > SMALLEST_SPREAD * max(1.0, float(np.abs(heads).max())):
        return
    different = len(set(map(tuple, reference)))
    raise UserError(
        f"The reward model gives all {len(reference)} normalisation samples ({different} different) the same score, so "
        "that its scores have no scale; raise sampling.temperature or reward_model.normalisation_samples, or train "
        "an SFT policy that gives more than one answer."
    )


def score_sequences(reward_model: RewardModel, sequences: Sequence[TokenIds]) -> np.ndarray:
    """Scores [N] (float64) of sequences of ids."""
    return _score_heads_of(reward_model, sequences).mean(axis=0)


@torch.no_grad()
def _score_heads_of(reward_model: RewardModel, sequences: Sequence[TokenIds]) -> np.ndarray:
    """Scores [H, N] (float64)."""
    parts, at_once = [], scored_at_once(max(map(len, sequences), default=0))
    for start in range(0, len(sequences), at_once):
        batch = pad(sequences[start : start + at_once], reward_model.tokenizer.pad_token_id, "right")
        parts.append(score_heads(reward_model.model, batch.to(reward_model.device)).double().cpu().numpy())
    return np.ascontiguousarray(np.concatenate(parts).T)
