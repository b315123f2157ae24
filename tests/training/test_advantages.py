import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_dagster.training.models.token_statistics import masked_mean, masked_var, whiten
from rlhf_dagster.training.ppo.advantages import gae, group_normalised, leave_one_out


def prefix_mask(lengths: list[int], width: int) -> Tensor:
    return (torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]).double()


def vectorised(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """A = D W with D the temporal differences and W[s, t] = (gamma lam)^(s - t) for s >= t."""
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    steps = torch.arange(rewards.shape[1])
    gap = (steps[:, None] - steps[None, :]).double()
    weights = torch.where(gap >= 0, torch.tensor(gamma * lam, dtype=torch.float64) ** gap.clamp(min=0), 0.0)
    return (rewards + gamma * following - values) @ weights


def test_by_hand() -> None:
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 1.5]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3), gamma=0.9, lam=0.5)
    # delta = [1 + 0.9 x 1 - 0.5, 0.9 x 1.5 - 1, 2 - 1.5] = [1.4, 0.35, 0.5]
    # A_2 = 0.5; A_1 = 0.35 + 0.45 x 0.5 = 0.575; A_0 = 1.4 + 0.45 x 0.575 = 1.65875
    torch.testing.assert_close(advantages, torch.tensor([[1.65875, 0.575, 0.5]]))
    torch.testing.assert_close(returns, torch.tensor([[2.15875, 1.575, 2.0]]))


@given(st.integers(0, 10_000), st.floats(0.1, 1), st.floats(0, 1), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_loop_equals_vectorised_and_ignores_padding(seed: int, gamma: float, lam: float, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(len(lengths), 7, generator=generator, dtype=torch.float64)
    values = torch.randn(len(lengths), 7, generator=generator, dtype=torch.float64)
    mask = prefix_mask(lengths, 7)
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    torch.testing.assert_close(advantages, vectorised(rewards * mask, values * mask, gamma, lam))
    torch.testing.assert_close(returns, advantages + values * mask)
    assert (advantages * (1 - mask) == 0).all()


def test_lambda_one_without_discount_is_return_minus_value() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.1, 0.2, 0.3]])
    advantages, returns = gae(rewards, values, torch.ones(1, 3), gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[6.0, 5.0, 3.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[5.9, 4.8, 2.7]]))


@pytest.mark.parametrize("shift_mean", [True, False])
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 100), shift=st.floats(-50, 50))
def test_whitened_values_have_deviation_1_over_the_mask(
    shift_mean: bool, seed: int, scale: float, shift: float
) -> None:
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift
    mask = prefix_mask([6, 3, 5, 1], 6)
    whitened = whiten(values, mask, shift_mean)
    kept = 0.0 if shift_mean else masked_mean(values, mask).item()
    assert masked_mean(whitened, mask).item() == pytest.approx(kept, abs=1e-6)
    assert masked_var(whitened, mask).item() == pytest.approx(1.0, abs=1e-4)
    assert (whitened * (1 - mask) == 0).all()


def test_population_variance_by_hand() -> None:
    values, mask = torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert masked_var(values, mask).item() == 1.0
    torch.testing.assert_close(whiten(values, mask), torch.tensor([[-1.0, 1.0, 0.0]]))


def test_leave_one_out_by_hand() -> None:
    # Means of the others: (2+6)/2, (1+6)/2, (1+2)/2 for the first prompt; the second has equal rewards.
    advantages = leave_one_out(torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0]), 3)
    torch.testing.assert_close(advantages, torch.tensor([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]))


def test_group_normalised_by_hand() -> None:
    # Means 2 and 5; population deviations 1 and 0.
    advantages = group_normalised(torch.tensor([1.0, 3.0, 5.0, 5.0]), 2)
    torch.testing.assert_close(advantages, torch.tensor([-1.0, 1.0, 0.0, 0.0]), atol=2e-4, rtol=0)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), shift=st.floats(-10, 10), scale=st.floats(0.5, 20))
def test_compared_advantages_sum_to_0_and_ignore_a_shift_of_the_rewards(
    seed: int, size: int, shift: float, scale: float
) -> None:
    rewards = torch.randn(3 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for estimator in (leave_one_out, group_normalised):
        advantages = estimator(rewards, size)
        assert advantages.view(3, size).sum(dim=1).abs().max() < 1e-9
        torch.testing.assert_close(estimator(rewards + shift, size), advantages, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(leave_one_out(scale * rewards, size), scale * leave_one_out(rewards, size))
