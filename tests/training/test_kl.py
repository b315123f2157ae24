import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.models.kl_estimators import k1, k2, k3, sequence_kl
from rlhf_dagster.training.ppo.kl_penalty import AdaptiveKl, FixedKl, kl_controller, kl_loss, token_rewards


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


def expected_gradient(estimator: str, logits: Tensor, reference: Tensor) -> Tensor:
    """Over tokens drawn from the policy itself: each of the V tokens weighted by its probability."""
    logits = logits.clone().requires_grad_()
    log_probs = logits.log_softmax(dim=-1)
    weights = log_probs.detach().exp()
    each = [
        kl_loss(log_probs[None, [v]], reference[None, [v]], log_probs[None, [v]].detach(), torch.ones(1, 1), estimator)
        for v in range(len(logits))
    ]
    (weights * torch.stack(each)).sum().backward()
    assert logits.grad is not None
    return logits.grad


@given(st.integers(0, 10_000))
def test_gradients_of_the_kl_as_a_loss(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(6, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    log_probs = logits.log_softmax(dim=-1)
    (to_reference,) = torch.autograd.grad((log_probs.exp() * (log_probs - reference)).sum(), logits, retain_graph=True)
    (from_reference,) = torch.autograd.grad((reference.exp() * (reference - log_probs)).sum(), logits)
    for estimator in ("k1", "k2"):
        torch.testing.assert_close(expected_gradient(estimator, logits.detach(), reference), to_reference)
    torch.testing.assert_close(expected_gradient("k3", logits.detach(), reference), from_reference)


def test_the_kl_as_a_loss_is_a_mean_over_response_tokens() -> None:
    log_probs, reference = torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-2.0, -2.5, 0.0]])
    old, mask = torch.tensor([[-1.0, -2.5, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    found = {name: kl_loss(log_probs, reference, old, mask, name).item() for name in ("k1", "k2", "k3")}
    # k1: (1 x 1 + e^0.5 x 0.5) / 2; k2: (0.5 + 0.125) / 2; k3: (e^-1 - 1 + 1 + e^-0.5 - 1 + 0.5) / 2
    assert found == pytest.approx({"k1": 0.9121803, "k2": 0.3125, "k3": 0.2372050}, abs=1e-6)
