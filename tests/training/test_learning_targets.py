"""What an update learns from a rollout of two responses of two tokens and one, by hand."""

import pytest
import torch
from torch import Tensor

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.ppo.rollout import Rollout, learning_targets
from rlhf_dagster.training.texts.tokens import PaddedBatch

MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
SETTINGS = PpoSettings(gamma=1.0, gae_lambda=1.0, whiten_rewards=False)
KL_COEF = 0.5


def rollout(values: Tensor | None = None) -> Rollout:
    """Log-ratios to the reference of 0.2, -0.4 and 0.6; scores of 1 and 2."""
    ids = torch.ones(2, 3, dtype=torch.long)
    return Rollout(
        batch=PaddedBatch(ids, ids),
        tokens=ids[:, 1:],
        mask=MASK,
        log_probs=torch.tensor([[-1.0, -2.0], [-0.5, 0.0]]),
        reference_log_probs=torch.tensor([[-1.2, -1.6], [-1.1, 0.0]]),
        values=values,
        scores=torch.tensor([1.0, 2.0]),
    )


VALUES = torch.tensor([[0.1, 0.3], [0.5, 0.0]])
REWARDS = torch.tensor([-0.1, 1.2, 1.7])
"""Of the three tokens: -0.5 x 0.2; 0.5 x 0.4 + 1; -0.5 x 0.6 + 2."""


def of_tokens(table: Tensor) -> Tensor:
    return table[MASK > 0]


def test_returns_are_sums_of_rewards_and_advantages_are_whitened() -> None:
    targets = learning_targets(rollout(VALUES), SETTINGS, KL_COEF)
    assert targets.returns is not None
    torch.testing.assert_close(of_tokens(targets.returns), torch.tensor([1.1, 1.2, 1.7]))
    # Before they are whitened: 1.1 - 0.1, 1.2 - 0.3, 1.7 - 0.5, of mean 31/30 and variance 0.0155556.
    raw = torch.tensor([1.0, 0.9, 1.2])
    torch.testing.assert_close(of_tokens(targets.advantages), (raw - 31 / 30) / 0.0155556**0.5, rtol=1e-4, atol=1e-4)
    assert targets.advantages[1, 1] == 0
    assert targets.kl_coef == 0


def test_whitened_rewards_keep_their_mean() -> None:
    targets = learning_targets(rollout(VALUES), SETTINGS.changed(whiten_rewards=True), KL_COEF)
    whitened = (REWARDS - REWARDS.mean()) / REWARDS.std(correction=0) + REWARDS.mean()
    assert targets.returns is not None
    expected = torch.stack([whitened[0] + whitened[1], whitened[1], whitened[2]])
    torch.testing.assert_close(of_tokens(targets.returns), expected)


@pytest.mark.parametrize("penalty", ["k1", "k2", "k3"])
def test_a_kl_in_the_loss_is_not_in_the_reward(penalty: str) -> None:
    settings = SETTINGS.changed(kl_penalty=penalty)
    targets = learning_targets(rollout(VALUES), settings, KL_COEF)
    assert targets.returns is not None
    torch.testing.assert_close(of_tokens(targets.returns), torch.tensor([1.0, 1.0, 2.0]))
    assert targets.kl_coef == KL_COEF


def test_without_values_whole_responses_are_compared() -> None:
    compared = SETTINGS.changed(samples_per_prompt=2, advantages="rloo")
    targets = learning_targets(rollout(), compared, KL_COEF)
    # Rewards of the responses: -0.1 + 1.2 and 1.7.
    torch.testing.assert_close(targets.advantages, torch.tensor([[-0.6, -0.6], [0.6, 0.0]]))
    assert targets.returns is None
    grouped = learning_targets(rollout(), compared.changed(advantages="group"), KL_COEF)
    # Deviation 0.3, to which 1e-4 is added.
    torch.testing.assert_close(grouped.advantages[0, 0], torch.tensor(-0.3 / 0.3001))
    # Scaled to deviation 1, rewards differ by 2.
    scaled = learning_targets(rollout(), compared.changed(whiten_rewards=True), KL_COEF)
    torch.testing.assert_close(of_tokens(scaled.advantages), torch.tensor([-2.0, -2.0, 2.0]))
