"""Sampling responses with a key-value cache, and scoring given responses under another policy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.training.compute import precision
from rlhf_dagster.training.importance import require_same_model
from rlhf_dagster.training.kv_cache import make_cache
from rlhf_dagster.training.log_probs import (
    Decoding,
    decoding_of,
    head_inputs,
    policy_log_softmax,
    response_outputs,
    token_log_probs,
)
from rlhf_dagster.training.policies import Policy, load_policy, require_context
from rlhf_dagster.training.rollouts import RolloutBackend, rollout_backend
from rlhf_dagster.training.settings import ComputeSettings, SamplingSettings
from rlhf_dagster.training.tokens import PaddedBatch, TokenIds, encode_prompts, pad, position_ids

KEPT_WHILE_ALIVE = 0.75
"""Rows that have ended leave the batch where fewer than this share are left; each time copies the cache of the rest."""


@dataclass(frozen=True)
class Sample:
    """One response. ``token_ids`` include the end-of-text token where one was drawn, ``text`` does not."""

    text: str
    token_ids: list[int]
    log_probs: list[float]
    """Of each token under the sampling policy, in nats."""


@dataclass(frozen=True)
class Responses:
    """A batch of sampled responses; T is the longest response allowed."""

    tokens: Tensor
    """[B, T] ids, padding after the end."""
    mask: Tensor
    """[B, T] int64, 1 at response tokens, the end-of-text token included."""
    log_probs: Tensor
    """[B, T] under the sampling policy, 0 at padding."""
    values: Tensor | None
    """[B, T] of the value head before each token, 0 at padding; None without one."""


def sample(
    policy: Path | Policy,
    prompts: Sequence[str],
    sampling: SamplingSettings,
    seed: int,
    samples_per_prompt: int = 1,
    *,
    greedy: bool = False,
    compute: ComputeSettings | None = None,
    backend: RolloutBackend | None = None,
) -> list[Sample]:
    """Sample responses, all of the first prompt's first.

    Each sample has its own row of random numbers, drawn up front from ``seed``: the batch size changes the result only
    through rounding. ``greedy`` takes the likeliest token instead (temperature 0). Another ``backend`` than this
    package's (by default that of ``compute``) gets all prompts at once; log-probs are computed here in any case.

    Raises:
        UserError: the checkpoint cannot be opened, prompt and response do not fit its context, or the backend does not
            sample from the policy.
    """
    if backend is None:
        with rollout_backend(compute, sampling.batch_size) as own:
            return sample(
                policy, prompts, sampling, seed, samples_per_prompt, greedy=greedy, compute=compute, backend=own
            )
    policy = policy if isinstance(policy, Policy) else load_policy(policy, compute)
    _require_fit(policy, sampling)
    decoding = decoding_of(policy.tokenizer, sampling)
    encoded = encode_prompts(policy.tokenizer, prompts, sampling.prompt_tokens)
    rows = [ids for ids in encoded for _ in range(samples_per_prompt)]
    generator = torch.Generator().manual_seed(seed)
    uniforms = None if greedy else draw_uniforms(len(rows), sampling.response_tokens, generator)
    samples: list[Sample] = []
    at_once = sampling.batch_size if backend.own_arithmetic else max(len(rows), 1)
    with precision(compute):
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            batch = pad(rows[part], decoding.pad_id, "left").to(policy.device)
            noise = None if uniforms is None else uniforms[part].to(policy.device)
            samples += _as_samples(backend.generate(policy.model, batch, noise, decoding), policy)
    if backend.own_arithmetic:
        return samples
    repeated = [prompt for prompt in prompts for _ in range(samples_per_prompt)]
    return _measured(policy, repeated, samples, sampling, compute, greedy)


class NativeRollouts:
    """The rollout backend of this package (:func:`generate`)."""

    own_arithmetic = True

    def __init__(self, compute: ComputeSettings | None = None, rows: int = 0) -> None:
        """Device, threads and precision are those around a call."""

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: nn.Module | None = None,
    ) -> "Responses":
        return generate(model, prompts, uniforms, decoding, value_head)

    def close(self) -> None:
        """Nothing is kept."""


def draw_uniforms(rows: int, tokens: int, generator: torch.Generator) -> Tensor:
    """[rows, tokens] uniform numbers in [0, 1), drawn on the CPU: the same whatever the model runs on."""
    return torch.rand(rows, tokens, generator=generator, dtype=torch.float64)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: PaddedBatch,
    uniforms: Tensor | None,
    decoding: Decoding,
    value_head: nn.Module | None = None,
) -> Responses:
    """Sample one response for each row of left-padded ``prompts`` [B, Q].

    Log-probs (and values) are recorded on the way, which saves PPO a forward pass over its rollout. Where lengths vary,
    rows that have ended leave the batch, which changes the others only through rounding.

    Args:
        model: a causal language model.
        prompts: ids and mask [B, Q].
        uniforms: [B, T] the random number behind each token; None takes the likeliest token.
        decoding: temperature, length, and which tokens are never drawn.
        value_head: maps hidden states [B, d] to values [B, 1].
    """
    rows, device = prompts.input_ids.shape[0], prompts.input_ids.device
    shape = (rows, decoding.max_tokens)
    tokens, mask = (
        torch.full(shape, decoding.pad_id, device=device),
        torch.zeros(shape, dtype=torch.long, device=device),
    )
    log_probs = torch.zeros(shape, device=device)
    values = None if value_head is None else torch.zeros_like(log_probs)
    sampler = _Sampler(model, prompts, decoding)
    for t in range(decoding.max_tokens):
        logits, hidden = sampler.step(hidden=value_head is not None)
        distribution = policy_log_softmax(logits, decoding)
        own = sampler.rows
        drawn = distribution.argmax(dim=-1) if uniforms is None else _draw(distribution, uniforms[own, t])
        tokens[own, t] = torch.where(sampler.alive, drawn, decoding.pad_id)
        mask[own, t] = sampler.alive.long()
        log_probs[own, t] = distribution.gather(1, drawn[:, None])[:, 0] * sampler.alive
        if values is not None and value_head is not None and hidden is not None:
            values[own, t] = value_head(hidden)[:, 0].float() * sampler.alive
        if not sampler.goes_on(drawn):
            break
    return Responses(tokens, mask, log_probs, values)


class _Sampler:
    """The rows of a batch that are still being sampled, with their cache."""

    def __init__(self, model: PreTrainedModel, prompts: PaddedBatch, decoding: Decoding) -> None:
        ids, mask = prompts
        self.model, self.decoding = model, decoding
        self.rows = torch.arange(len(ids), device=ids.device)
        """[n] which rows of the batch they are."""
        self.alive = torch.ones_like(self.rows, dtype=torch.bool)
        """[n] false where end-of-text was drawn."""
        self.cache = make_cache(model.config, ids.shape[1] + decoding.max_tokens)
        self.ids, self.mask, self.positions = ids, mask, position_ids(mask)

    def step(self, hidden: bool) -> tuple[Tensor, Tensor | None]:
        """Logits [n, V] of the next token and, where asked, the hidden states [n, d] they came from."""
        with head_inputs(self.model, hidden) as states:
            logits = self.model(
                input_ids=self.ids,
                attention_mask=self.mask,
                position_ids=self.positions,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        return logits[:, -1], states[0][:, -1] if hidden else None

    def goes_on(self, drawn: Tensor) -> bool:
        """Take in the tokens [n] drawn; false where every row has ended."""
        self.ids, self.positions = drawn[:, None], self.positions[:, -1:] + 1
        # What follows a row's end is seen by that row alone, whose samples are not kept.
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        if self.decoding.fixed_length:
            return True
        self.alive = self.alive & (drawn != self.decoding.end_id)
        count = int(self.alive.sum())
        if 0 < count < KEPT_WHILE_ALIVE * len(self.alive):
            self._drop_ended()
        return count > 0

    def _drop_ended(self) -> None:
        alive = self.alive.nonzero()[:, 0]
        self.cache.batch_select_indices(alive)
        for name in ("rows", "alive", "ids", "mask", "positions"):
            setattr(self, name, getattr(self, name)[alive])


@torch.no_grad()
def response_log_probs(
    policy: Path | Policy,
    prompts: Sequence[str],
    responses: Sequence[TokenIds],
    sampling: SamplingSettings,
    compute: ComputeSettings | None = None,
) -> list[list[float]]:
    """Log-prob of each token of given responses under ``policy``, in nats, at the sampling temperature.

    With the log-probs recorded while sampling, the sums of the differences are the sequence KL between two policies.
    """
    policy = policy if isinstance(policy, Policy) else load_policy(policy, compute)
    decoding = decoding_of(policy.tokenizer, sampling)
    encoded = encode_prompts(policy.tokenizer, prompts, sampling.prompt_tokens)
    log_probs: list[list[float]] = []
    for start in range(0, len(encoded), sampling.batch_size):
        part = slice(start, start + sampling.batch_size)
        left = pad(encoded[part], decoding.pad_id, "left").to(policy.device)
        right = pad([list(ids) for ids in responses[part]], decoding.pad_id, "right").to(policy.device)
        ids = torch.cat([left.input_ids, right.input_ids], dim=1)
        mask = torch.cat([left.attention_mask, right.attention_mask], dim=1)
        with precision(compute):
            logits, _ = response_outputs(policy.model, ids, mask, right.input_ids.shape[1])
        part_log_probs = token_log_probs(logits, right.input_ids, right.attention_mask, decoding)
        lengths = right.attention_mask.sum(dim=1).tolist()
        log_probs += [row[:n] for row, n in zip(part_log_probs.tolist(), lengths, strict=True)]
    return log_probs


def _draw(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse transform sampling: ids [B] from log-probs [B, V] and one uniform number for each row.

    In float64, and never past the last token with any probability: rounding cannot draw a suppressed token.
    """
    cumulative = log_probs.double().exp().cumsum(dim=-1)
    total = cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, uniforms[:, None].to(total) * total, right=True)[:, 0]
    last_possible = (cumulative < total).sum(dim=-1)
    return torch.minimum(drawn, last_possible)


def _measured(
    policy: Policy,
    prompts: Sequence[str],
    samples: Sequence[Sample],
    sampling: SamplingSettings,
    compute: ComputeSettings | None,
    greedy: bool,
) -> list[Sample]:
    """Samples of another program with log-probs by this one, as those of a reference policy will be."""
    log_probs = response_log_probs(policy, prompts, [drawn.token_ids for drawn in samples], sampling, compute)
    if not greedy:  # what is likeliest has no probability to compare
        ours, theirs = (
            torch.tensor([number for row in rows for number in row])
            for rows in (log_probs, [drawn.log_probs for drawn in samples])
        )
        require_same_model(ours, theirs, torch.ones_like(ours))
    return [replace(drawn, log_probs=row) for drawn, row in zip(samples, log_probs, strict=True)]


def _as_samples(responses: Responses, policy: Policy) -> list[Sample]:
    lengths = responses.mask.sum(dim=1).tolist()
    ids = [row[:n] for row, n in zip(responses.tokens.tolist(), lengths, strict=True)]
    texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    log_probs = [row[:n] for row, n in zip(responses.log_probs.tolist(), lengths, strict=True)]
    return [Sample(*parts) for parts in zip(texts, ids, log_probs, strict=True)]


def _require_fit(policy: Policy, sampling: SamplingSettings) -> None:
    needed = sampling.prompt_tokens + sampling.response_tokens
    require_context(policy.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
