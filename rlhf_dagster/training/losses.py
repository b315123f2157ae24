"""Losses of the reward model and of PPO: pure functions on tensors."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_dagster.training.masked import masked_mean


def preference_loss(scores: Tensor, target: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy between ``target`` and the softmax of K scores, averaged over labels by weight.

    One loss for every kind of comparison: best of K is a one-hot target (Ziegler et al. 2019, equation 1), a pair is
    K = 2, where it equals Bradley-Terry's -log sigmoid(s_winner - s_loser) (Christiano et al. 2017, section 2.2.3), and
    a tie shares the target.

    Args:
        scores: [B, K] scores of the responses compared.
        target: [B, K] probability that each is the best; rows sum to 1 over the mask.
        mask: [B, K] 1 at responses, 0 at padding of labels that compare fewer than K.
        weight: [B] weight of each label.

    Returns:
        The loss in nats, a scalar.
    """
    log_probs = scores.masked_fill(mask == 0, -torch.inf).log_softmax(dim=-1)
    # At padding the product would be 0 times -inf.
    per_label = -(target * log_probs.masked_fill(mask == 0, 0.0)).sum(dim=-1)
    return (weight * per_label).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


class PolicyLoss(NamedTuple):
    loss: Tensor
    clip_fraction: Tensor
    """Share of response tokens where the clipped term was the larger."""
    approx_kl: Tensor
    """Half the mean squared difference of log-probs to the old policy, in nats for each token."""


def ppo_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip_range: float
) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), mean over response tokens; all inputs [B, T]."""
    difference = (log_probs - old_log_probs) * mask
    ratio = difference.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    return PolicyLoss(
        loss=masked_mean(torch.maximum(unclipped, clipped), mask),
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
