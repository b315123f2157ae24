"""Losses of labels: pure functions from the scores of the responses compared to one loss for each choice or rating.

A choice is what a label says about which of K responses is best. A pair is K = 2; a ranking is several choices, by
nested choices (Plackett-Luce) or by all its pairs.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def choice_losses(scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy [B], in nats, between ``target`` and the softmax of K scores.

    One loss for every kind of comparison: best of K is a one-hot target (Ziegler et al. 2019, equation 1), and a pair
    is K = 2, where it equals Bradley-Terry's -log sigmoid(s_winner - s_loser) (Christiano et al. 2017, section 2.2.3).
    A tie shares the target. For a tie within a ranking this is Breslow's (1974) approximation to the likelihood of the
    unknown order, with its factors averaged in place of multiplied; :func:`davidson_luce_losses` is a model of ties.

    Args:
        scores: [B, K] scores of the responses compared.
        target: [B, K] probability that each is the best; rows sum to 1 over the mask.
        mask: [B, K] 1 at responses, 0 at padding of choices among fewer than K.
    """
    log_probs = scores.masked_fill(mask == 0, -torch.inf).log_softmax(dim=-1)
    # At padding the product would be 0 times -inf.
    return -(target * log_probs.masked_fill(mask == 0, 0.0)).sum(dim=-1)


def with_margin(scores: Tensor, target: Tensor, margin: Tensor) -> Tensor:
    """Scores [B, K] from which the best response's ``margin`` [B] is taken off: it must win by that much more.

    For a pair, the loss becomes -log sigmoid(s_winner - s_loser - margin) (Llama 2, Touvron et al. 2023, equation 2).
    """
    return scores - margin.unsqueeze(-1) * target


def davidson_luce_losses(scores: Tensor, target: Tensor, mask: Tensor, log_prevalence: Tensor) -> Tensor:
    """Negative log-likelihood [B] of choices with ties, in nats.

    The responses with a target above 0 are the chosen set S. Every set of responses but the empty one can be chosen:

        P(S) = f(S) / sum over sets A of f(A),    log f(A) = log d_|A| + mean of the scores in A,    d_1 = 1

    (Davidson-Luce, Firth, Kosmidis and Turner 2019, section 2; for a pair it is Davidson 1970, with ties' prevalence
    d_2.) Given that there is no tie, it is the softmax of the scores.

    Args:
        scores: [B, K] scores of the responses compared.
        target: [B, K] above 0 at the responses chosen.
        mask: [B, K] 1 at responses, 0 at padding.
        log_prevalence: [M] log d_2, log d_3, ...; K is at most M + 1.
    """
    subsets = _subsets(scores.shape[-1]).to(scores)
    sizes = subsets.sum(dim=-1)
    log_size = torch.cat([log_prevalence.new_zeros(1), log_prevalence])[sizes.long() - 1]
    real = scores.masked_fill(mask == 0, 0.0)
    # These products are sums of scores and counts of padding, which bfloat16 would round.
    with torch.autocast(scores.device.type, enabled=False):
        log_f = log_size + (real @ subsets.T) / sizes
        beyond = (mask == 0).to(scores) @ subsets.T > 0
    normaliser = log_f.masked_fill(beyond, -torch.inf).logsumexp(dim=-1)
    bits = 2 ** torch.arange(scores.shape[-1], device=scores.device)
    place = ((target > 0) * bits).sum(dim=-1) - 1
    return normaliser - log_f.gather(-1, place.unsqueeze(-1)).squeeze(-1)


@lru_cache
def _subsets(size: int) -> Tensor:
    """Every set but the empty one of ``size`` members, as rows of 0 and 1; row i is the set i + 1 in binary."""
    numbers = torch.arange(1, 2**size).unsqueeze(-1)
    return (numbers >> torch.arange(size)) & 1


def rao_kupper_losses(scores: Tensor, target: Tensor, threshold: Tensor) -> Tensor:
    """Negative log-likelihood [B] of pairs with ties, in nats (Rao and Kupper 1967).

    Both responses have a utility, the score plus Gumbel noise, and one is only called better where it leads by more
    than the threshold h: P(first) = sigmoid(s_1 - s_2 - h), and P(tie) is what is left,
    (exp(2h) - 1) sigmoid(s_1 - s_2 - h) sigmoid(s_2 - s_1 - h).

    Args:
        scores: [B, 2] scores of the two responses.
        target: [B, 2] above 0 at the better one, or at both.
        threshold: [] above 0, in units of the score.
    """
    difference = scores[:, 0] - scores[:, 1]
    first, second = logsigmoid(difference - threshold), logsigmoid(-difference - threshold)
    tied = torch.expm1(2 * threshold).log() + first + second
    return -torch.where((target > 0).all(dim=-1), tied, torch.where(target[:, 0] > 0, first, second))


def rating_losses(predicted: Tensor, rating: Tensor) -> Tensor:
    """Squared errors [R] of scores against ratings, or of score differences against rating differences.

    The ratings are standardised, so that scores have a usual size (lm-human-preferences `label_types.py`,
    `ScalarRating` and `ScalarComparison`).
    """
    return (predicted - rating).square()


def weighted_mean(losses: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``losses`` [B] by ``weight`` [B]; 0 where all weights are 0."""
    return (weight * losses).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def preference_loss(scores: Tensor, target: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """The mean of :func:`choice_losses` by ``weight`` [B], a scalar."""
    return weighted_mean(choice_losses(scores, target, mask), weight)
