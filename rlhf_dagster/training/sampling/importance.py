"""Weights that correct for a sampler and a trainer that disagree on the same policy, and a limit to that.

Two implementations of a model, in other kernels or another precision, give a token two probabilities. Responses then
come from the sampler's policy and the gradient is the trainer's: without a correction training is off-policy without
anybody having said so (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
"""

import math

from torch import Tensor

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.kl_estimators import k3
from rlhf_dagster.training.models.token_statistics import masked_mean

LOST = 0.3
"""Nats of KL for each token beyond which two programs do not sample from the same model at all. Rounding to bfloat16
causes less than a hundredth of it. What is smaller is corrected, and said by an alarm."""


def truncated_weights(log_probs: Tensor, sampler_log_probs: Tensor, cap: float) -> Tensor:
    """min(p_trainer / p_sampler, ``cap``) of each token, from log-probs of one shape; 1 at padding, where both are 0.

    Truncated importance sampling (Yao et al. 2025; Ionides 2008): weighted by the ratio, a term's expectation under the
    sampler is its expectation under the trainer's policy. The cap bounds the variance, and causes a bias where it is
    reached. A token's weight corrects for that token given the tokens before it, not for these. The weight of a whole
    response would correct for all, with a variance that grows with the length.
    """
    return (log_probs - sampler_log_probs).exp().clamp(max=cap)


def sampler_numbers(log_probs: Tensor, sampler_log_probs: Tensor, mask: Tensor, cap: float) -> dict[str, Tensor]:
    """Scalars that describe the disagreement on sampled tokens; all inputs [B, T].

    `sampler_kl` estimates KL(sampler, trainer), in nats for each token, by k3; `sampler_weight_clipped` is the share of
    tokens whose weight is cut at ``cap``.
    """
    clipped = (log_probs - sampler_log_probs).exp() > cap
    return {
        "sampler_kl": masked_mean(k3(sampler_log_probs, log_probs).masked_fill(mask == 0, 0.0), mask),
        "sampler_weight_clipped": masked_mean(clipped.to(mask.dtype), mask),
    }


def require_same_model(log_probs: Tensor, sampler_log_probs: Tensor, mask: Tensor) -> None:
    """Raise UserError where the disagreement on sampled tokens [B, T] is beyond what weights can correct."""
    kl = float(sampler_numbers(log_probs, sampler_log_probs, mask, 1.0)["sampler_kl"])
    if not math.isfinite(kl):
        raise UserError(
            "The rollout backend drew a token that the policy never draws, such as padding: it samples from another "
            "distribution; set `compute.rollout_backend: native`."
        )
    if kl > LOST:
        raise UserError(
            f"The rollout backend's log-probabilities are {kl:.2g} nats a token from the policy's: it samples from "
            "another model, other weights or another temperature; set `compute.rollout_backend: native`."
        )
