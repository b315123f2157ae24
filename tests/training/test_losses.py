import math

import torch

from rlhf_dagster.training.ppo.losses import clipped_value_loss, ppo_policy_loss


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


def test_clipped_are_those_whose_ratio_has_gone_too_far_where_the_advantage_points() -> None:
    # 1.5 has gained enough; 0.5 ought to have gained; 1.1 is inside.
    ratio, advantages = torch.tensor([[1.5, 1.5, 0.5, 1.1]]), torch.ones(1, 4)
    assert ppo_policy_loss(ratio.log(), torch.zeros(1, 4), advantages, torch.ones(1, 4), 0.2).clip_fraction == 0.5
    # With negative advantages, 0.5 alone has lost enough.
    assert ppo_policy_loss(ratio.log(), torch.zeros(1, 4), -advantages, torch.ones(1, 4), 0.2).clip_fraction == 0.25


def test_policy_loss_of_the_sampling_policy_is_minus_the_mean_advantage() -> None:
    log_probs, advantages = torch.randn(3, 4), torch.randn(3, 4)
    result = ppo_policy_loss(log_probs, log_probs, advantages, torch.ones(3, 4), 0.2)
    torch.testing.assert_close(result.loss, -advantages.mean())
    assert result.clip_fraction == 0
    assert result.approx_kl == 0


def test_weights_multiply_the_terms_and_not_their_number() -> None:
    ratio, advantages, mask = torch.tensor([[1.5, 0.5, 9.0]]), torch.ones(1, 3), torch.tensor([[1.0, 1.0, 0.0]])
    weights = torch.tensor([[0.5, 2.0, 1.0]])
    result = ppo_policy_loss(ratio.log(), torch.zeros(1, 3), advantages, mask, 0.2, weights)
    # -1.2 and -0.5, weighted, over two tokens.
    assert math.isclose(result.loss.item(), (-1.2 * 0.5 - 0.5 * 2.0) / 2, abs_tol=1e-6)


def test_value_loss_by_hand() -> None:
    values, old = torch.tensor([[1.0, 0.1, 7.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    returns, mask = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    # clip(1, +-0.2) = 0.2: max((1 - 2)^2, (0.2 - 2)^2) = 3.24; 0.1 is inside: (0.1 - 1)^2 = 0.81.
    assert math.isclose(
        clipped_value_loss(values, old, returns, mask, 0.2).item(), 0.5 * (3.24 + 0.81) / 2, abs_tol=1e-6
    )
