"""One PPO rollout: sampled responses with everything that learning from them needs."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.training.advantages import gae
from rlhf_dagster.training.distributed import gather_rows
from rlhf_dagster.training.kl import sequence_kl, token_rewards
from rlhf_dagster.training.log_probs import Decoding, response_outputs, token_log_probs
from rlhf_dagster.training.masked import masked_mean, masked_var, whiten
from rlhf_dagster.training.ppo_policy import PolicyWithValue
from rlhf_dagster.training.sampling import Responses, generate
from rlhf_dagster.training.settings import PpoSettings
from rlhf_dagster.training.tokens import PaddedBatch

Score = Callable[[PaddedBatch], Tensor]
"""Scores [B] of prompts (padded on the left) and responses (padded on the right) in one batch of ids [B, L]."""


@dataclass(frozen=True)
class Rollout:
    """B episodes: Q prompt tokens, padded on the left, and T response tokens, padded on the right."""

    batch: PaddedBatch
    """Ids and mask [B, Q + T]."""
    tokens: Tensor
    """[B, T] response ids."""
    mask: Tensor
    """[B, T] float, 1 at response tokens."""
    log_probs: Tensor
    """[B, T] under the policy that sampled."""
    reference_log_probs: Tensor
    """[B, T] under the SFT policy."""
    values: Tensor
    """[B, T] before each token."""
    scores: Tensor
    """[B] of the reward model, after the rule for a missing end."""

    def of_all_ranks(self, count: int) -> "Rollout":
        """The ``count`` episodes of which each rank has its part, in order, on every rank."""
        batch = PaddedBatch(*(gather_rows(part, count) for part in self.batch))
        tensors = {f.name: gather_rows(getattr(self, f.name), count) for f in fields(self) if f.name != "batch"}
        return Rollout(batch, **tensors)


@dataclass(frozen=True)
class Targets:
    advantages: Tensor
    """[B, T] whitened."""
    returns: Tensor
    """[B, T]."""


@torch.no_grad()
def collect(
    policy: PolicyWithValue,
    reference: PreTrainedModel,
    score: Score,
    prompts: PaddedBatch,
    *,
    uniforms: Tensor,
    decoding: Decoding,
    missing_end_penalty: float | None = None,
) -> Rollout:
    """Sample a response to each of ``prompts`` [B, Q] and measure it under the reference and the reward model.

    The policy's log-probs and values are those recorded while sampling, without a second forward pass.
    """
    responses = generate(policy.model, prompts, uniforms, decoding, policy.value_head)
    batch = _join(prompts, responses.tokens, responses.mask)
    logits, _ = response_outputs(reference, batch.input_ids, batch.attention_mask, decoding.max_tokens)
    scores = score(_as_scored(prompts, responses, decoding)).float()
    if missing_end_penalty is not None:
        ended = (responses.tokens == decoding.end_id).any(dim=1)
        scores = torch.where(ended, scores, missing_end_penalty)
    assert responses.values is not None  # noqa: S101  # a value head was given
    return Rollout(
        batch=batch,
        tokens=responses.tokens,
        mask=responses.mask.float(),
        log_probs=responses.log_probs,
        reference_log_probs=token_log_probs(logits, responses.tokens, responses.mask, decoding),
        values=responses.values,
        scores=scores,
    )


def learning_targets(rollout: Rollout, settings: PpoSettings, kl_coef: float) -> Targets:
    """Advantages and returns. Rewards keep their mean when whitened, advantages do not; returns stay raw."""
    mask = rollout.mask
    rewards = token_rewards(rollout.log_probs, rollout.reference_log_probs, rollout.scores, mask, kl_coef)
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, rollout.values, mask, settings.gamma, settings.gae_lambda)
    return Targets(whiten(advantages, mask), returns)


def rollout_numbers(rollout: Rollout, targets: Targets) -> dict[str, Tensor]:
    """Scalars that describe a rollout.

    `reward` is the mean score; `kl` the mean sequence KL to the SFT policy, in nats; `entropy` the mean surprise
    -log p of a sampled token, in nats; `explained_variance` 1 - (error of the values) / (variance of the returns).
    """
    mask = rollout.mask
    error = masked_mean((targets.returns - rollout.values).square(), mask)
    distinct = torch.unique(rollout.tokens, dim=0).shape[0] / rollout.tokens.shape[0]
    return {
        "reward": rollout.scores.mean(),
        "kl": sequence_kl(rollout.log_probs, rollout.reference_log_probs, mask).mean(),
        "entropy": masked_mean(-rollout.log_probs, mask),
        "explained_variance": 1 - error / masked_var(targets.returns, mask).clamp(min=1e-8),
        "response_length": mask.sum(dim=1).mean(),
        "distinct_responses": torch.tensor(distinct, device=mask.device),
    }


def _join(prompts: PaddedBatch, tokens: Tensor, mask: Tensor) -> PaddedBatch:
    return PaddedBatch(
        torch.cat([prompts.input_ids, tokens], dim=1), torch.cat([prompts.attention_mask, mask.long()], dim=1)
    )


def _as_scored(prompts: PaddedBatch, responses: Responses, decoding: Decoding) -> PaddedBatch:
    """The reward model reads its score at end-of-text where lengths vary, so a response cut at T tokens gets one."""
    if decoding.fixed_length:
        return _join(prompts, responses.tokens, responses.mask)
    cut = ~(responses.tokens == decoding.end_id).any(dim=1, keepdim=True)
    end = torch.where(cut, decoding.end_id, decoding.pad_id)
    tokens = torch.cat([responses.tokens, end], dim=1)
    return _join(prompts, tokens, torch.cat([responses.mask, cut.long()], dim=1))
