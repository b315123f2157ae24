"""Generalised advantage estimation."""

from typing import NamedTuple

import torch
from torch import Tensor


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
