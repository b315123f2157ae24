import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.training.losses import clipped_value_loss, ppo_policy_loss, preference_loss

scores = st.floats(-20, 20)
ONE = torch.ones(1)


def loss_of(values: list[float], target: list[float]) -> float:
    row = torch.tensor([values], dtype=torch.float64)
    return preference_loss(row, torch.tensor([target], dtype=torch.float64), torch.ones_like(row), ONE).item()


@given(scores, scores)
def test_two_responses_are_bradley_terry(better: float, worse: float) -> None:
    expected = math.log1p(math.exp(-(better - worse)))
    assert math.isclose(loss_of([better, worse], [1.0, 0.0]), expected, abs_tol=1e-9)


def test_best_of_four_is_minus_log_softmax_of_the_best() -> None:
    # softmax([1, 2, 3, 0])_3 = e^3 / (e^0 + e^1 + e^2 + e^3) = 20.0855 / 31.1929
    assert math.isclose(loss_of([1.0, 2.0, 3.0, 0.0], [0, 0, 1, 0]), -math.log(20.085537 / 31.192877), abs_tol=1e-6)


def test_a_tie_is_the_mean_of_both_outcomes() -> None:
    both = (loss_of([1.0, -2.0], [1.0, 0.0]) + loss_of([1.0, -2.0], [0.0, 1.0])) / 2
    assert math.isclose(loss_of([1.0, -2.0], [0.5, 0.5]), both, abs_tol=1e-9)


def test_labels_with_fewer_responses_are_padded_without_effect() -> None:
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    ragged = torch.tensor([[0.3, -0.2, 99.0], [0.1, 0.2, 0.4]], requires_grad=True)
    loss = preference_loss(ragged, target, mask, torch.ones(2))
    expected = (loss_of([0.3, -0.2], [1.0, 0.0]) + loss_of([0.1, 0.2, 0.4], [0.0, 0.0, 1.0])) / 2
    assert math.isclose(loss.item(), expected, abs_tol=1e-6)
    loss.backward()
    assert ragged.grad is not None
    assert ragged.grad[0, 2] == 0
    assert torch.isfinite(ragged.grad).all()


def test_weights_make_a_weighted_mean() -> None:
    rows = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = preference_loss(rows, target, torch.ones(2, 2), torch.tensor([3.0, 1.0]))
    # (3 log(1 + e^-2) + log(1 + e)) / 4 = (3 x 0.126928 + 1.313262) / 4
    assert math.isclose(loss.item(), 0.4235115, abs_tol=1e-6)


def test_policy_loss_by_hand() -> None:
    ratio = torch.tensor([[1.5, 0.5, 1.1, 9.0]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, 5.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    result = ppo_policy_loss(ratio.log(), torch.zeros(1, 4), advantages, mask, 0.2)
    # max(-1.5, -1.2) = -1.2; max(-0.5, -0.8) = -0.5; max(1.1, 1.1) = 1.1; the last is padding.
    assert math.isclose(result.loss.item(), (-1.2 - 0.5 + 1.1) / 3, abs_tol=1e-6)
    assert math.isclose(result.clip_fraction.item(), 1 / 3, abs_tol=1e-6)
    squares = math.log(1.5) ** 2 + math.log(0.5) ** 2 + math.log(1.1) ** 2
    assert math.isclose(result.approx_kl.item(), 0.5 * squares / 3, abs_tol=1e-6)


def test_policy_loss_of_the_sampling_policy_is_minus_the_mean_advantage() -> None:
    log_probs, advantages = torch.randn(3, 4), torch.randn(3, 4)
    result = ppo_policy_loss(log_probs, log_probs, advantages, torch.ones(3, 4), 0.2)
    torch.testing.assert_close(result.loss, -advantages.mean())
    assert result.clip_fraction == 0
    assert result.approx_kl == 0


def test_value_loss_by_hand() -> None:
    values, old = torch.tensor([[1.0, 0.1, 7.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    returns, mask = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    # clip(1, +-0.2) = 0.2: max((1 - 2)^2, (0.2 - 2)^2) = 3.24; 0.1 is inside: (0.1 - 1)^2 = 0.81.
    assert math.isclose(
        clipped_value_loss(values, old, returns, mask, 0.2).item(), 0.5 * (3.24 + 0.81) / 2, abs_tol=1e-6
    )
