"""One-token responses with a table of rewards: the best policy under a KL penalty is known in closed form."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy_language import COMPUTE, FIXED

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.training.models.log_probs import decoding_of, policy_log_softmax
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.ppo.policy import PolicyWithValue, PpoPolicy
from rlhf_dagster.training.ppo.rollout import Episodes
from rlhf_dagster.training.ppo.train import run_ppo
from rlhf_dagster.training.texts.tokens import PaddedBatch, encode_prompts, pad, position_ids

BETA = 0.5
REWARDS = {"good": 1.0, "dog": 0.4, "bad": -0.5}
"""Of one word; every other word is worth 0."""
COMMON = PpoSettings(updates=60, batch_size=256, learning_rate=4e-3, kl_coef=BETA, kl_target=None, whiten_rewards=False)


@pytest.fixture
def bandit(policy: Policy, sft: Path) -> tuple[Episodes, Tensor]:
    """Its episodes, and the reward [V] of each token."""
    table = torch.zeros(len(policy.tokenizer))
    for word, reward in REWARDS.items():
        table[policy.tokenizer.convert_tokens_to_ids(word)] = reward
    prompts = encode_prompts(policy.tokenizer, ["red dog .", "good", "blue cat bad"], FIXED.prompt_tokens)
    decoding = decoding_of(policy.tokenizer, FIXED.changed(response_tokens=1))
    reference = load_policy(sft, COMPUTE).model.requires_grad_(False)
    return Episodes(prompts, reference, lambda batch: table[batch.input_ids[:, -1]], decoding), table


@torch.no_grad()
def first_token(model: nn.Module, episodes: Episodes) -> Tensor:
    """Probabilities [prompts, V] of the response's one token."""
    batch: PaddedBatch = pad(list(episodes.prompts), episodes.decoding.pad_id, "left")
    positions = position_ids(batch.attention_mask)
    logits = model(batch.input_ids, attention_mask=batch.attention_mask, position_ids=positions).logits[:, -1]
    return policy_log_softmax(logits, episodes.decoding).exp()


def distance(one: Tensor, other: Tensor) -> Tensor:
    """Total variation [prompts] of two distributions [prompts, V]."""
    return (one - other).abs().sum(dim=1) / 2


def sampling_error(distribution: Tensor, count: int) -> Tensor:
    """The expected total variation [prompts] between a distribution and ``count`` samples of it.

    A frequency is about normal, with deviation sqrt(p (1 - p) / n); its mean absolute error is sqrt(2 / pi) of that.
    """
    return (2 * distribution * (1 - distribution) / (torch.pi * count)).sqrt().sum(dim=1) / 2


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="ppo"),
        pytest.param({"advantages": "rloo", "samples_per_prompt": 4}, id="rloo"),
        pytest.param({"advantages": "group", "samples_per_prompt": 8}, id="group"),
        pytest.param({"advantages": "rloo", "samples_per_prompt": 4, "kl_penalty": "k1"}, id="rloo-k1"),
        pytest.param({"advantages": "rloo", "samples_per_prompt": 4, "kl_penalty": "k2"}, id="rloo-k2"),
    ],
)
def test_it_reaches_the_optimum_in_closed_form(changes: dict, bandit: tuple[Episodes, Tensor], sft: Path) -> None:
    """pi(y) = ref(y) exp(r(y) / beta) / Z (Ziegler et al. 2019, section 2), within the error with which the
    episodes of one update would measure it."""
    episodes, table = bandit
    settings = COMMON.changed(**changes)
    optimum = first_token(episodes.reference, episodes) * (table / BETA).exp()
    optimum /= optimum.sum(dim=1, keepdim=True)
    model = load_policy(sft, COMPUTE).model
    error = sampling_error(optimum, settings.batch_size // len(episodes.prompts))
    assert (distance(first_token(model, episodes), optimum) > 3 * error).all()
    run_ppo(PolicyWithValue(model) if settings.advantages == "gae" else PpoPolicy(model), episodes, settings, seed=0)
    assert (distance(first_token(model, episodes), optimum) < error).all()
