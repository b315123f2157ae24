"""Estimators of advantages: pure functions on tensors."""

from typing import NamedTuple

import torch
from torch import Tensor

GROUP_EPSILON = 1e-4
"""Added to a group's deviation, so that equal rewards give advantages of 0."""


class Advantages(NamedTuple):
    advantages: Tensor
    """[B, T], not whitened."""
    returns: Tensor
    """[B, T], advantages plus values: what the value head should predict."""


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Advantages:
    """Generalised advantage estimation (Schulman et al. 2016, equations 11 to 16) for responses that end.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}; after the last token both V and A are 0.

    Args:
        rewards: [B, T] reward of each response token.
        values: [B, T] value of the state before each token.
        mask: [B, T] 1 at response tokens, which come before all padding.
        gamma: discount.
        lam: lambda of GAE.
    """
    rewards, values = rewards * mask, values * mask
    next_value = next_advantage = torch.zeros_like(rewards[:, 0])
    backwards = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
        backwards.append(next_advantage)
    advantages = torch.stack(backwards[::-1], dim=1)
    return Advantages(advantages, advantages + values)


def leave_one_out(rewards: Tensor, group_size: int) -> Tensor:
    """RLOO: A_i = R_i - mean_{j != i} R_j over the other responses to the prompt (Ahmadian et al. 2024, section 3.2).

    Args:
        rewards: [B] reward of each whole response; the ``group_size`` responses to a prompt follow each other.
        group_size: k, at least 2.

    Returns:
        [B] advantages, the same for every token of a response.
    """
    groups = rewards.view(-1, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).flatten()


def group_normalised(rewards: Tensor, group_size: int) -> Tensor:
    """A_i = (R_i - mean R) / deviation of R over the responses to the prompt (Shao et al. 2024, GRPO, section 4.1.2).

    With the population deviation. Arguments and result are those of :func:`leave_one_out`.
    """
    groups = rewards.view(-1, group_size)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (groups.std(dim=1, correction=0, keepdim=True) + GROUP_EPSILON)).flatten()
