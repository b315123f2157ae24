"""Estimators of the KL divergence between two policies from the log-probabilities of sampled tokens.

They are those of Schulman 2020, Approximating KL Divergence (joschu.net/blog/kl-approx.html).
"""

from torch import Tensor


def k1(log_probs: Tensor, reference: Tensor) -> Tensor:
    """log(pi / ref) of each sampled token, in nats: estimates KL(pi, ref) without bias (Schulman 2020)."""
    return log_probs - reference


def k2(log_probs: Tensor, reference: Tensor) -> Tensor:
    """Half the squared log-ratio: biased, low variance (Schulman 2020)."""
    return 0.5 * (log_probs - reference).square()


def k3(log_probs: Tensor, reference: Tensor) -> Tensor:
    """ref/pi - 1 - log(ref/pi): unbiased and never negative (Schulman 2020)."""
    log_ratio = reference - log_probs
    return log_ratio.exp() - 1 - log_ratio


def sequence_kl(log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """[B] sum of k1 over the response tokens of [B, T] log-probs: the mean over samples estimates the sequence KL."""
    return (k1(log_probs, reference) * mask).sum(dim=1)
