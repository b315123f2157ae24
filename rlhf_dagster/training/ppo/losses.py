"""Losses of PPO: pure functions on tensors."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_dagster.training.models.token_statistics import masked_mean


class PolicyLoss(NamedTuple):
    loss: Tensor
    clip_fraction: Tensor
    """Share of response tokens where the clipped term was the larger."""
    approx_kl: Tensor
    """Half the mean squared difference of log-probs to the old policy, in nats for each token."""


def ppo_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), mean over response tokens; all inputs [B, T].

    ``weights`` multiply each token's term: importance weights, where the sampler differs from the old policy.
    """
    difference = (log_probs - old_log_probs) * mask
    ratio = difference.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    terms = torch.maximum(unclipped, clipped)
    return PolicyLoss(
        loss=masked_mean(terms if weights is None else terms * weights, mask),
        clip_fraction=masked_mean((clipped > unclipped).to(mask.dtype), mask),
        approx_kl=0.5 * masked_mean(difference.square(), mask),
    )


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float) -> Tensor:
    """Half the mean over response tokens of the larger of two squared errors: plain, and clipped around the old value.

    All inputs [B, T]. Ziegler et al. 2019, lm-human-preferences `train_policy.py`, after OpenAI Baselines' PPO2.
    """
    clipped = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    errors = torch.maximum((values - returns).square(), (clipped - returns).square())
    return 0.5 * masked_mean(errors, mask)
