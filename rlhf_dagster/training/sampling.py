"""Sampling responses with a key-value cache, and scoring given responses under another policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from rlhf_dagster.training.compute import precision
from rlhf_dagster.training.log_probs import Decoding, decoding_of, policy_log_softmax, response_outputs, token_log_probs
from rlhf_dagster.training.policies import Policy, load_policy, require_context
from rlhf_dagster.training.settings import ComputeSettings, SamplingSettings
from rlhf_dagster.training.tokens import PaddedBatch, TokenIds, encode_prompts, pad, position_ids


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
) -> list[Sample]:
    """Sample responses, all of the first prompt's first.

    Each sample has its own row of random numbers, drawn up front from ``seed``: the batch size changes the result only
    through rounding. ``greedy`` takes the likeliest token instead (temperature 0).

    Raises:
        UserError: the checkpoint cannot be opened, or prompt and response do not fit its context.
    """
    policy = policy if isinstance(policy, Policy) else load_policy(policy, compute)
    _require_fit(policy, sampling)
    decoding = decoding_of(policy.tokenizer, sampling)
    encoded = encode_prompts(policy.tokenizer, prompts, sampling.prompt_tokens)
    rows = [ids for ids in encoded for _ in range(samples_per_prompt)]
    generator = torch.Generator().manual_seed(seed)
    uniforms = None if greedy else draw_uniforms(len(rows), sampling.response_tokens, generator)
    samples: list[Sample] = []
    with precision(compute):
        for start in range(0, len(rows), sampling.batch_size):
            part = slice(start, start + sampling.batch_size)
            batch = pad(rows[part], decoding.pad_id, "left").to(policy.device)
            noise = None if uniforms is None else uniforms[part].to(policy.device)
            samples += _as_samples(generate(policy.model, batch, noise, decoding), policy)
    return samples


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

    Log-probs (and values) are recorded on the way, which saves PPO a forward pass over its rollout.

    Args:
        model: a causal language model.
        prompts: ids and mask [B, Q].
        uniforms: [B, T] the random number behind each token; None takes the likeliest token.
        decoding: temperature, length, and which tokens are never drawn.
        value_head: maps hidden states [B, d] to values [B, 1].
    """
    rows, device = prompts.input_ids.shape[0], prompts.input_ids.device
    tokens = torch.full((rows, decoding.max_tokens), decoding.pad_id, device=device)
    mask = torch.zeros_like(tokens)
    log_probs = torch.zeros(tokens.shape, device=device)
    values = None if value_head is None else torch.zeros_like(log_probs)
    alive = torch.ones(rows, dtype=torch.bool, device=device)
    cache = DynamicCache(config=model.config)
    step_ids, step_positions = prompts.input_ids, position_ids(prompts.attention_mask)
    attention_mask = prompts.attention_mask
    for t in range(decoding.max_tokens):
        outputs = model(
            input_ids=step_ids,
            attention_mask=attention_mask,
            position_ids=step_positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            output_hidden_states=value_head is not None,
        )
        distribution = policy_log_softmax(outputs.logits[:, -1], decoding)
        drawn = distribution.argmax(dim=-1) if uniforms is None else _draw(distribution, uniforms[:, t])
        tokens[:, t] = torch.where(alive, drawn, decoding.pad_id)
        mask[:, t] = alive
        log_probs[:, t] = distribution.gather(1, drawn[:, None])[:, 0] * alive
        if values is not None and value_head is not None:
            values[:, t] = value_head(outputs.hidden_states[-1][:, -1])[:, 0] * alive
        attention_mask = torch.cat([attention_mask, mask[:, t : t + 1]], dim=1)
        step_ids, step_positions = tokens[:, t : t + 1], step_positions[:, -1:] + 1
        alive = alive & (drawn != decoding.end_id)
        if not decoding.fixed_length and not alive.any():
            break
    return Responses(tokens, mask, log_probs, values)


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


def _as_samples(responses: Responses, policy: Policy) -> list[Sample]:
    lengths = responses.mask.sum(dim=1).tolist()
    ids = [row[:n] for row, n in zip(responses.tokens.tolist(), lengths, strict=True)]
    texts = policy.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    log_probs = [row[:n] for row, n in zip(responses.log_probs.tolist(), lengths, strict=True)]
    return [Sample(*parts) for parts in zip(texts, ids, log_probs, strict=True)]


def _require_fit(policy: Policy, sampling: SamplingSettings) -> None:
    needed = sampling.prompt_tokens + sampling.response_tokens
    require_context(policy.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
