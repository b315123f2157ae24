"""Statistics over the response tokens of a padded batch. Masks are 1 at response tokens and 0 at padding."""

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` [B, T] where ``mask`` [B, T] is 1, as a scalar; 0 where the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Population variance of ``values`` [B, T] where ``mask`` [B, T] is 1, as a scalar."""
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scale ``values`` [B, T] to deviation 1 over the mask; padding becomes 0.

    ``shift_mean=True`` also moves the mean to 0 (advantages); ``shift_mean=False`` keeps the mean (rewards).
    Ziegler et al. 2019, `whiten` in lm-human-preferences `utils/core.py`: population variance, 1e-8 added to it.
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_var(values, mask) + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask
