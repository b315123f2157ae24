import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.ppo.kl_penalty import kl_loss
from rlhf_dagster.training.ppo.losses import ppo_policy_loss
from rlhf_dagster.training.sampling.importance import require_same_model, sampler_numbers, truncated_weights

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
ADVANTAGES = torch.tensor([[0.3, -1.0, 2.0, 0.5]], dtype=torch.float64)


def log_probs_at(temperature: float) -> torch.Tensor:
    """[1, 4] of every token of a small vocabulary."""
    return (LOGITS / temperature).log_softmax(0)[None]


def test_weights_by_hand() -> None:
    policy, sampler = torch.tensor([[0.6, 0.2, 0.5, 1.0]]).log(), torch.tensor([[0.3, 0.4, 0.1, 1.0]]).log()
    # 0.6 / 0.3, 0.2 / 0.4, 0.5 / 0.1 = 5 cut at 3, and padding.
    torch.testing.assert_close(truncated_weights(policy, sampler, 3.0), torch.tensor([[2.0, 0.5, 3.0, 1.0]]))


def test_numbers_by_hand() -> None:
    policy, sampler = torch.tensor([[0.6, 0.2, 0.5, 1.0]]).log(), torch.tensor([[0.3, 0.4, 0.1, 1.0]]).log()
    numbers = sampler_numbers(policy, sampler, torch.tensor([[1.0, 1.0, 1.0, 0.0]]), 2.5)
    ratios = (2.0, 0.5, 5.0)
    expected = sum(ratio - 1 - math.log(ratio) for ratio in ratios) / 3
    assert numbers["sampler_kl"].item() == pytest.approx(expected, rel=1e-5)
    assert numbers["sampler_weight_clipped"].item() == pytest.approx(1 / 3)


@given(st.lists(st.tuples(st.floats(-8, 0), st.floats(-8, 0)), min_size=1, max_size=6), st.floats(1, 10))
def test_weights_are_at_most_the_cap_and_the_kl_is_never_negative(pairs: list[tuple[float, float]], cap: float) -> None:
    policy, sampler = torch.tensor(pairs, dtype=torch.float64).T
    weights = truncated_weights(policy, sampler, cap)
    assert ((weights > 0) & (weights <= cap)).all()
    assert sampler_numbers(policy, sampler, torch.ones_like(policy), cap)["sampler_kl"] >= -1e-12


def gradient_under(sampler: torch.Tensor, cap: float | None, term: str = "policy") -> torch.Tensor:
    """The expected gradient of a loss where tokens are drawn from ``sampler``: each token, with its probability."""
    logits = LOGITS.clone().requires_grad_()
    log_probs = logits.log_softmax(0)[None]
    old = log_probs.detach()
    weights = torch.ones_like(old) if cap is None else truncated_weights(old, sampler, cap)
    # The mean over all four tokens, each weighted by four times its probability, is the expectation.
    weights, mask = weights * sampler.exp() * 4, torch.ones_like(old)
    if term == "policy":
        ppo_policy_loss(log_probs, old, ADVANTAGES, mask, 1e9, weights).loss.backward()
    else:
        kl_loss(log_probs, log_probs_at(3.0), old, mask, term, weights).backward()
    assert logits.grad is not None
    return logits.grad


@pytest.mark.parametrize("term", ["policy", "k1", "k2", "k3"])
def test_weights_correct_the_expected_gradient_of_a_sampler_at_another_temperature(term: str) -> None:
    right = gradient_under(log_probs_at(1.0), None, term)
    sampler = log_probs_at(1.7)
    torch.testing.assert_close(gradient_under(sampler, 1e9, term), right)
    uncorrected, capped = gradient_under(sampler, None, term), gradient_under(sampler, 1.1, term)
    assert (uncorrected - right).norm() > 0.1 * right.norm()
    assert 0 < (capped - right).norm() < (uncorrected - right).norm()


@pytest.mark.parametrize("term", ["k1", "k2", "k3"])
def test_the_kl_over_tokens_of_an_older_policy_has_the_gradient_of_the_policy_s_own(term: str) -> None:
    logits, older = LOGITS.clone().requires_grad_(), log_probs_at(1.7)
    log_probs, weights = logits.log_softmax(0)[None], older.exp() * 4
    kl_loss(log_probs, log_probs_at(3.0), older, torch.ones_like(older), term, weights, older=True).backward()
    torch.testing.assert_close(logits.grad, gradient_under(log_probs_at(1.0), None, term))


def test_a_sampler_that_is_not_the_policy_is_a_user_error() -> None:
    mask = torch.tensor([[1, 1, 0]])
    ours, theirs = torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-1.1, -1.9, 0.0]])
    require_same_model(ours, theirs, mask)
    with pytest.raises(UserError, match="a token that the policy never draws"):
        require_same_model(torch.tensor([[-1.0, -torch.inf, 0.0]]), theirs, mask)
    with pytest.raises(UserError, match=r"3 nats a token from the policy's"):
        require_same_model(torch.tensor([[-5.1, -5.9, 0.0]]), theirs, mask)
    with pytest.raises(UserError, match="never draws"):
        require_same_model(ours, torch.tensor([[-1.0, torch.nan, 0.0]]), mask)
