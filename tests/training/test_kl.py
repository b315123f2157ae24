import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.training.kl import AdaptiveKl, FixedKl, k1, k2, k3, kl_controller, sequence_kl, token_rewards
from rlhf_dagster.training.settings import PpoSettings


def test_estimators_by_hand() -> None:
    new, reference = torch.tensor(math.log(0.6)), torch.tensor(math.log(0.3))
    assert k1(new, reference).item() == pytest.approx(math.log(2))
    assert k2(new, reference).item() == pytest.approx(0.5 * math.log(2) ** 2)
    assert k3(new, reference).item() == pytest.approx(0.5 - 1 + math.log(2))


def test_k1_and_k3_are_unbiased() -> None:
    new, reference = torch.tensor([0.7, 0.2, 0.1]).log(), torch.tensor([0.3, 0.3, 0.4]).log()
    exact = (new.exp() * (new - reference)).sum()
    for estimator in (k1, k3):
        torch.testing.assert_close((new.exp() * estimator(new, reference)).sum(), exact)


def test_the_score_is_added_at_the_last_response_token() -> None:
    new, reference = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -1.0]]), torch.zeros(2, 3)
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    rewards = token_rewards(new, reference, torch.tensor([10.0, 20.0]), mask, coef=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[0.5, 11.0, 0.0], [0.5, 0.5, 20.5]]))
    torch.testing.assert_close(sequence_kl(new, reference, mask), torch.tensor([-3.0, -3.0]))


@pytest.mark.parametrize(
    ("kl", "factor"), [(6.0, 1.0), (6.6, 1 + 0.1 * 0.0512), (100.0, 1 + 0.2 * 0.0512), (0.0, 1 - 0.2 * 0.0512)]
)
def test_adaptive_coefficient_in_closed_form(kl: float, factor: float) -> None:
    controller = AdaptiveKl(coef=0.15, target=6.0, horizon=10_000)
    for _ in range(3):
        controller.update(kl, episodes=512)
    assert controller.coef == pytest.approx(0.15 * factor**3)


@given(st.floats(-10, 100))
def test_fixed_coefficient_stays(kl: float) -> None:
    controller = FixedKl(0.05)
    controller.update(kl, 512)
    assert controller.coef == 0.05


def test_the_state_restores_a_controller() -> None:
    controller = AdaptiveKl(0.15, 6.0, 10_000)
    controller.update(100.0, 512)
    other = kl_controller(PpoSettings(kl_coef=0.9))
    other.load_state_dict(controller.state_dict())
    assert other.coef == controller.coef != 0.15


def test_a_null_target_means_a_fixed_coefficient() -> None:
    assert kl_controller(PpoSettings(kl_coef=0.02, kl_target=None)) == FixedKl(0.02)
