"""Losses of direct preference optimisation: pure functions on tensors.

DPO and IPO compare two responses by h, the difference of their log-ratios to the reference policy:

    h = (log pi(y_1|x) - log ref(y_1|x)) - (log pi(y_2|x) - log ref(y_2|x))

beta h is the difference of the responses' implicit rewards (Rafailov et al. 2023, arXiv 2305.18290, equation 5). KTO
judges one response, whose h is its log-ratio minus a reference point.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDING = 1e-4
"""Nats by which sums of float32 log-probs of the same tokens may differ between two batches."""


def smoothed(preferred: Tensor, label_smoothing: float) -> Tensor:
    """[P] probability that the first response is preferred, where a label is wrong with ``label_smoothing``.

    With smoothed labels :func:`dpo_loss` is conservative DPO (Mitchell 2023, *A note on DPO with noisy preferences*).
    """
    return preferred * (1 - label_smoothing) + (1 - preferred) * label_smoothing


def dpo_loss(h: Tensor, preferred: Tensor, beta: float) -> Tensor:
    """[P] cross-entropy of sigmoid(beta h) against ``preferred``, in nats (Rafailov et al. 2023, equation 7).

    Args:
        h: [P] difference of log-ratios, first response minus second.
        preferred: [P] probability that the first response is preferred: 1 or 0, and 1/2 for a tie, whose loss is least
            where both responses have the same implicit reward.
        beta: weight of the KL to the reference in the objective that DPO optimises.
    """
    return -preferred * F.logsigmoid(beta * h) - (1 - preferred) * F.logsigmoid(-beta * h)


def ipo_loss(h: Tensor, preferred: Tensor, beta: float) -> Tensor:
    """[P] squared distance of h to 1/(2 beta) in favour of the preferred response (Azar et al. 2023, arXiv 2310.12036,
    equation 17); a tie is the mean of both directions. ``beta`` is their tau; arguments as in :func:`dpo_loss`.
    """
    goal = 1 / (2 * beta)
    return preferred * (h - goal).square() + (1 - preferred) * (h + goal).square()


def kto_loss(h: Tensor, liked: Tensor, beta: float) -> Tensor:
    """[P] loss of Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, equation 8).

    Args:
        h: [P] log-ratio of a response to the reference policy, minus the reference point z0.
        liked: [P] share of what is said about the response that likes it: 1 or 0, or between where people differ. The
            paper's weights of both kinds are part of what it is a share of, and of the weight that multiplies the loss.
        beta: weight of the KL to the reference policy.
    """
    return liked * torch.sigmoid(-beta * h) + (1 - liked) * torch.sigmoid(beta * h)


LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss, "kto": kto_loss}


def pair_numbers(h: Tensor, preferred: Tensor, weight: Tensor, beta: float) -> dict[str, Tensor]:
    """Scalars over P pairs, ties left out, each pair counted by its weight; of KTO's responses, see :func:`kto_loss`.

    `accuracy` is the share whose preferred response has the larger implicit reward; where the rewards differ by
    rounding alone, as before training, a pair counts a half. `reward_margin` is the mean lead of the preferred
    response's reward (nats of beta times the log-ratio). `decided` is the weight of the pairs; if it is 0, all are 0.
    A single response that was liked should be above the reference point, and one that was not below.
    """
    side = torch.sign(preferred - 0.5)
    decided = weight * side.abs()
    total = decided.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    lead = h * side
    right = torch.where(lead.abs() <= ROUNDING, 0.5, (lead > 0).to(h.dtype))
    return {
        "accuracy": (decided * right).sum() / total,
        "reward_margin": (decided * beta * lead).sum() / total,
        "decided": decided.sum(),
    }
