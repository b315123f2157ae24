"""One PPO rollout: sampled responses with everything that learning from them needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.models.kl_estimators import sequence_kl
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.lora import without_adapters
from rlhf_dagster.training.models.passes.logit_pieces import log_probs_of
from rlhf_dagster.training.models.sharding.weights import has_shards, reshard, whole_weights
from rlhf_dagster.training.models.token_statistics import masked_mean, masked_var, whiten
from rlhf_dagster.training.ppo.advantages import gae, group_normalised, leave_one_out
from rlhf_dagster.training.ppo.frozen_layers import recorded
from rlhf_dagster.training.ppo.kl_penalty import token_rewards
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.ppo.reward import Reward, Score, TextScore, WeightedSum, combined
from rlhf_dagster.training.ppo.truncation import Truncation, penalised
from rlhf_dagster.training.runtime.distributed import gather_rows, largest_of_ranks
from rlhf_dagster.training.sampling.backend import OutsideBackend, Responses, RolloutBackend
from rlhf_dagster.training.sampling.importance import require_same_model
from rlhf_dagster.training.sampling.native import NativeRollouts
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds


@dataclass(frozen=True)
class Episodes:
    """Where episodes come from and how they are judged."""

    prompts: Sequence[TokenIds]
    reference: PreTrainedModel | PeftModel
    """Where this model has adapters, the reference is the model with its adapters switched off."""
    score: Score | TextScore | WeightedSum
    decoding: Decoding
    pretraining: Tensor | None = None
    """[N, L] windows of text for PPO-ptx."""
    texts: Sequence[Prompt] = ()
    """The prompts themselves, for a score that reads text."""
    truncate_id: int | None = None
    """The id of `truncate_token`."""
    held_out: Sequence[TokenIds] = ()
    """Prompts of validation."""
    held_out_texts: Sequence[Prompt] = ()
    backend: RolloutBackend = field(default_factory=NativeRollouts)
    """What draws the responses."""
    rows_at_once: int | None = None
    """The most episodes that are sampled and judged at once, which limits memory; None: all."""

    def sampled_at_once(self, rows: int) -> int:
        """How many of ``rows`` are sampled at once; another program is given all, and batches them itself."""
        return min(rows, self.rows_at_once or rows) if self.backend.own_arithmetic else rows


@dataclass(frozen=True)
class Rollout:
    """B episodes: Q prompt tokens, padded on the left, and T response tokens, padded on the right.

    Everything is of one moment, that of sampling. "The policy" is the one that the responses were drawn from: with
    `rollouts_ahead: 1` that of the end of the update before the last, which an optimisation calls the old one.
    """

    batch: PaddedBatch
    """Ids and mask [B, Q + T]."""
    tokens: Tensor
    """[B, T] response ids."""
    mask: Tensor
    """[B, T] float, 1 at response tokens."""
    log_probs: Tensor
    """[B, T] under the policy that sampled, as the trainer computes them: the denominator of PPO's ratio."""
    reference_log_probs: Tensor
    """[B, T] under the SFT policy."""
    values: Tensor | None
    """[B, T] before each token, by the values of the moment of sampling; None where the policy has no values."""
    scores: Tensor
    """[B] of the reward, after the rule for a missing end."""
    spread: Tensor | None = None
    """[B] deviation across an ensemble of reward models."""
    reward_parts: Tensor | None = None
    """[B, P] what each of several rewards adds to the score."""
    trunk: Tensor | None = None
    """[B, Q + T - 1, d] states above the frozen layers."""
    sampler_log_probs: Tensor | None = None
    """[B, T] of the same policy as ``log_probs``, as computed by another program, where that has sampled the tokens;
    None where the trainer has."""

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The tensors by name, for a state; :meth:`of_state` makes the rollout of them."""
        parts = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "batch"}
        kept = {name: [tensor] for name, tensor in parts.items() if tensor is not None}
        return {"batch": list(self.batch)} | kept

    @classmethod
    def of_state(cls, state: Mapping[str, Sequence[Tensor]], device: torch.device) -> "Rollout":
        """The rollout that :meth:`state_dict` described, with its tensors on ``device``."""
        moved = {name: [tensor.to(device) for tensor in tensors] for name, tensors in state.items()}
        whole: dict[str, Any] = {name: tensors[0] for name, tensors in moved.items() if name != "batch"}
        return cls(batch=PaddedBatch(*moved["batch"]), **whole)

    def of_all_ranks(self, count: int) -> "Rollout":
        """All ``count`` episodes in order, on every rank, from the part that each rank has."""
        whole: dict[str, Any] = {"batch": PaddedBatch(*(gather_rows(part, count) for part in self.batch))}
        for name in (f.name for f in fields(self) if f.name != "batch"):
            rows = getattr(self, name)
            whole[name] = None if rows is None else gather_rows(rows, count)
        return Rollout(**whole)

    @classmethod
    def of_parts(cls, parts: Sequence["Rollout"]) -> "Rollout":
        """The episodes of several rollouts of the same shape, one after the other."""
        whole: dict[str, Any] = {
            "batch": PaddedBatch(*map(torch.cat, zip(*(part.batch for part in parts), strict=True)))
        }
        for name in (f.name for f in fields(cls) if f.name != "batch"):
            rows = [getattr(part, name) for part in parts]
            whole[name] = None if rows[0] is None else torch.cat(rows)
        return cls(**whole)

    def checked(self) -> "Rollout":
        """This rollout; raises UserError where another program has sampled it from something other than the policy."""
        if self.sampler_log_probs is not None:
            require_same_model(self.log_probs, self.sampler_log_probs, self.mask)
        return self


@dataclass(frozen=True)
class Targets:
    advantages: Tensor
    """[B, T], whitened where they are from GAE."""
    returns: Tensor | None
    """[B, T]; None without values."""
    kl_coef: float = 0.0
    """Weight of the KL as a term of the loss."""


@torch.no_grad()
def collect(
    policy: PpoPolicy,
    episodes: Episodes,
    prompts: PaddedBatch,
    *,
    uniforms: Tensor,
    settings: PpoSettings,
    texts: Sequence[Prompt] = (),
) -> Rollout:
    """Sample a response to each of ``prompts`` [B, Q] and measure it under the reference and the reward.

    The policy's log-probs, and the values of a head on its trunk, are those recorded while sampling, without a second
    forward pass; where another program samples, one forward pass gives them. ``texts`` are the prompts,
    for a score that reads text. Where this package samples, `episodes.rows_at_once` are done at a time.
    """
    rollouts = [
        _collect(policy, episodes, PaddedBatch(*(side[own] for side in prompts)), uniforms[own], settings, texts[own])
        for own in _parts(len(prompts.input_ids), episodes, has_shards(policy))
    ]
    return rollouts[0] if len(rollouts) == 1 else Rollout.of_parts(rollouts)


def _parts(count: int, episodes: Episodes, together: bool) -> list[slice]:
    """The rows that are done at a time of this rank's ``count``.

    Where weights are in parts, all ranks must make the same number of passes ``together``, though some have a row less.
    """
    if not together:
        rows = episodes.sampled_at_once(count)
        return [slice(first, first + rows) for first in range(0, count, rows)]
    most = largest_of_ranks(count)
    passes = -(-most // episodes.sampled_at_once(most))
    return [slice(count * number // passes, count * (number + 1) // passes) for number in range(passes)]


def _collect(
    policy: PpoPolicy,
    episodes: Episodes,
    prompts: PaddedBatch,
    uniforms: Tensor,
    settings: PpoSettings,
    texts: Sequence[Prompt],
) -> Rollout:
    with whole_weights(policy.model, policy.value_head):
        responses = episodes.backend.generate(policy.model, prompts, uniforms, episodes.decoding, policy.value_head)
    return _measured_rollout(policy, episodes, prompts, responses, settings, texts)


@torch.no_grad()
def begin_collecting(
    policy: PpoPolicy,
    episodes: Episodes,
    backend: OutsideBackend,
    prompts: PaddedBatch,
    *,
    uniforms: Tensor,
    settings: PpoSettings,
    texts: Sequence[Prompt] = (),
) -> Callable[[], Rollout]:
    """As :func:`collect`, by a ``backend`` that samples in another process meanwhile.

    It has the policy's weights of now when this returns. What is returned waits for the responses and measures them; it
    is to be called while the policy has these weights again.
    """
    with whole_weights(policy.model):
        drawn = backend.begin(policy.model, prompts, uniforms, episodes.decoding)

    @torch.no_grad()
    def finish() -> Rollout:
        return _measured_rollout(policy, episodes, prompts, drawn(), settings, texts)

    return finish


def _measured_rollout(
    policy: PpoPolicy,
    episodes: Episodes,
    prompts: PaddedBatch,
    responses: Responses,
    settings: PpoSettings,
    texts: Sequence[Prompt],
) -> Rollout:
    """What learning needs of ``responses``, which are the policy's."""
    decoding, backend = episodes.decoding, episodes.backend
    truncation = Truncation(decoding.end_ids, episodes.truncate_id, settings.truncate_after)
    kept = truncation.kept(responses.tokens, responses.mask)
    reward = _reward(episodes, prompts, texts, responses.tokens, kept, settings.spread_coef)
    mask = kept if settings.truncated_rest == "masked" else responses.mask
    tokens = responses.tokens.where(mask > 0, decoding.pad_id)
    batch = _join(prompts, tokens, mask)
    with without_adapters(episodes.reference) as reference, recorded(reference) as trunk:
        reference_log_probs, _ = log_probs_of(reference, batch, tokens, mask, decoding)
        reshard(reference)
    measure = _recorded if backend.own_arithmetic else _measured
    log_probs, values = measure(policy, batch, responses, decoding)
    return Rollout(
        batch=batch,
        tokens=tokens,
        mask=mask.float(),
        log_probs=log_probs * mask,
        reference_log_probs=reference_log_probs,
        values=None if values is None else values * mask,
        scores=penalised(reward.score, truncation.ended(responses.tokens, responses.mask), settings),
        spread=reward.spread,
        reward_parts=reward.parts,
        trunk=trunk[0] if trunk else None,
        sampler_log_probs=None if backend.own_arithmetic else responses.log_probs * mask,
    )


def _recorded(
    policy: PpoPolicy, batch: PaddedBatch, responses: Responses, decoding: Decoding
) -> tuple[Tensor, Tensor | None]:
    """Log-probs and values [B, T] as they were recorded; a separate value model reads the responses now."""
    values = responses.values if policy.value_head is not None else policy.values(batch, decoding.max_tokens)
    return responses.log_probs, values


def _measured(
    policy: PpoPolicy, batch: PaddedBatch, responses: Responses, decoding: Decoding
) -> tuple[Tensor, Tensor | None]:
    """Log-probs and values [B, T] of responses that another program has sampled, by a forward pass of the policy."""
    mask = batch.attention_mask[:, -decoding.max_tokens :]
    return policy(batch, responses.tokens, mask, decoding)


def learning_targets(rollout: Rollout, settings: PpoSettings, kl_coef: float) -> Targets:
    """Advantages and returns. Rewards keep their mean when whitened, advantages do not; returns are not whitened."""
    mask, in_reward = rollout.mask, settings.kl_penalty == "reward"
    coefs = (kl_coef, 0.0) if in_reward else (0.0, kl_coef)
    rewards = token_rewards(rollout.log_probs, rollout.reference_log_probs, rollout.scores, mask, coefs[0])
    if rollout.values is None:
        return Targets(_compared(rewards.sum(dim=1), settings)[:, None] * mask, None, coefs[1])
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, rollout.values, mask, settings.gamma, settings.gae_lambda)
    return Targets(whiten(advantages, mask), returns, coefs[1])


def rollout_numbers(rollout: Rollout, targets: Targets) -> dict[str, Tensor]:
    """Scalars that describe a rollout.

    `reward` is the mean score; `kl` the mean sequence KL to the SFT policy, in nats; `entropy` the mean surprise
    -log p of a sampled token, in nats; `explained_variance` 1 - (error of the values) / (variance of the returns);
    `reward_spread` the mean deviation across an ensemble, where there is one.
    """
    mask = rollout.mask
    distinct = torch.unique(rollout.tokens, dim=0).shape[0] / rollout.tokens.shape[0]
    numbers = {
        "reward": rollout.scores.mean(),
        "kl": sequence_kl(rollout.log_probs, rollout.reference_log_probs, mask).mean(),
        "entropy": masked_mean(-rollout.log_probs, mask),
        "response_length": mask.sum(dim=1).mean(),
        "distinct_responses": torch.tensor(distinct, device=mask.device),
    }
    if targets.returns is not None and rollout.values is not None:
        error = masked_mean((targets.returns - rollout.values).square(), mask)
        numbers["explained_variance"] = 1 - error / masked_var(targets.returns, mask).clamp(min=1e-8)
    if rollout.spread is not None:
        numbers["reward_spread"] = rollout.spread.mean()
    return numbers


def _compared(rewards: Tensor, settings: PpoSettings) -> Tensor:
    """Advantages [B] from the rewards [B] of whole responses."""
    if settings.whiten_rewards:
        rewards = whiten(rewards, torch.ones_like(rewards), shift_mean=False)
    estimator = leave_one_out if settings.advantages == "rloo" else group_normalised
    return estimator(rewards, settings.samples_per_prompt)


def _reward(
    episodes: Episodes, prompts: PaddedBatch, texts: Sequence[Prompt], tokens: Tensor, mask: Tensor, spread_coef: float
) -> Reward:
    """The reward of responses [B, T], of which only the tokens where ``mask`` [B, T] is 1 are read."""

    def read(score: Score | TextScore) -> Tensor:
        if isinstance(score, TextScore):
            return score(texts, prompts, tokens, mask)
        return score(_as_scored(prompts, tokens, mask, episodes.decoding))

    if isinstance(episodes.score, WeightedSum):
        return episodes.score.reward(read, spread_coef)
    return combined(read(episodes.score), spread_coef)


def _join(prompts: PaddedBatch, tokens: Tensor, mask: Tensor) -> PaddedBatch:
    return PaddedBatch(
        torch.cat([prompts.input_ids, tokens], dim=1), torch.cat([prompts.attention_mask, mask.long()], dim=1)
    )


def _as_scored(prompts: PaddedBatch, tokens: Tensor, mask: Tensor, decoding: Decoding) -> PaddedBatch:
    """Where lengths vary, the reward model scores at end-of-text, so a response without that token gets it here."""
    tokens = tokens.where(mask > 0, decoding.pad_id)
    if decoding.fixed_length:
        return _join(prompts, tokens, mask)
    cut = ~decoding.is_end(tokens).any(dim=1, keepdim=True)
    end = torch.where(cut, decoding.end_id, decoding.pad_id)
    return _join(prompts, torch.cat([tokens, end], dim=1), torch.cat([mask, cut.long()], dim=1))
