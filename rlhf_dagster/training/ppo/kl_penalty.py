"""The KL to the reference policy in PPO: as a reward of each token, as a loss, and the controllers of its weight."""

from dataclasses import dataclass

from torch import Tensor

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.models.kl_estimators import k1, k2, k3
from rlhf_dagster.training.models.token_statistics import masked_mean


def token_rewards(log_probs: Tensor, reference: Tensor, scores: Tensor, mask: Tensor, coef: float) -> Tensor:
    """Rewards [B, T]: -coef k1 at each response token, the score added at the last (Ziegler et al. 2019, equation 2).

    Args:
        log_probs: [B, T] log-probs of the sampled tokens under the policy that sampled them.
        reference: [B, T] the same under the reference policy.
        scores: [B] the reward model's scores.
        mask: [B, T] 1 at response tokens, at least one in each row and before all padding.
        coef: weight of the KL, beta.
    """
    rewards = -coef * k1(log_probs, reference) * mask
    last = mask.sum(dim=1).long() - 1
    return rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards.dtype))


def kl_loss(
    log_probs: Tensor,
    reference: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    estimator: str,
    weights: Tensor | None = None,
    older: bool = False,
) -> Tensor:
    """The KL to the reference as a term of the loss: the mean over response tokens of an estimator, a scalar.

    What matters is an estimator's mean gradient over tokens drawn from the policy. The gradient of k1 is the score
    function, with mean 0; so k1 is multiplied by the probability ratio to the sampling policy, which makes the mean
    gradient that of KL(policy, reference). k2 has this mean gradient without a ratio. The mean gradient of k3 is that
    of the other direction, KL(reference, policy). Both are so over tokens of the policy itself; those of an ``older``
    one are weighted by the ratio to it.

    Args:
        log_probs: [B, T] under the policy that is trained.
        reference: [B, T] under the reference policy.
        old_log_probs: [B, T] under the policy that sampled.
        mask: [B, T] 1 at response tokens.
        estimator: `k1`, `k2` or `k3`.
        weights: [B, T] importance weights of the tokens, where the sampler differs from the old policy.
        older: whether the policy that sampled is an update behind the one that is trained when that begins.
    """
    if estimator == "k1":
        terms = ((log_probs - old_log_probs) * mask).exp() * k1(log_probs, reference)
    else:
        terms = {"k2": k2, "k3": k3}[estimator](log_probs, reference)
        terms = terms * ((log_probs - old_log_probs) * mask).detach().exp() if older else terms
    return masked_mean(terms if weights is None else terms * weights, mask)


@dataclass
class FixedKl:
    """A coefficient that never changes."""

    coef: float

    def update(self, kl: float, episodes: int) -> None:
        """Does nothing."""

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]


@dataclass
class AdaptiveKl:
    """A log-space proportional controller of the coefficient (Ziegler et al. 2019, section 2.2).

    With e = clip(kl / target - 1, -0.2, 0.2), the coefficient is multiplied by 1 + e n / horizon after n episodes.
    """

    coef: float
    target: float
    """Nats for a sequence."""
    horizon: int
    """Episodes."""

    def update(self, kl: float, episodes: int) -> None:
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.coef *= 1 + error * episodes / self.horizon

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]


KlController = FixedKl | AdaptiveKl


def kl_controller(settings: PpoSettings) -> KlController:
    if settings.kl_target is None:
        return FixedKl(settings.kl_coef)
    return AdaptiveKl(settings.kl_coef, settings.kl_target, settings.kl_horizon)
