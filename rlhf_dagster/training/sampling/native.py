"""Sampling with a key-value cache by this package."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.models.log_probs import Decoding, head_inputs, policy_log_softmax
from rlhf_dagster.training.models.tokens import PaddedBatch, position_ids
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.kv_cache import make_cache

KEPT_WHILE_ALIVE = 0.75
"""Ended rows leave the batch once fewer than this share have not ended; this copies the cache of the other rows."""


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
        """[n] their indices in the whole batch."""
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
        # Tokens after a row's end are seen by that row alone, and are not kept.
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        if self.decoding.fixed_length:
            return True
        self.alive = self.alive & ~self.decoding.is_end(drawn)
        count = int(self.alive.sum())
        if 0 < count < KEPT_WHILE_ALIVE * len(self.alive):
            self._drop_ended()
        return count > 0

    def _drop_ended(self) -> None:
        alive = self.alive.nonzero()[:, 0]
        self.cache.batch_select_indices(alive)
        for name in ("rows", "alive", "ids", "mask", "positions"):
            setattr(self, name, getattr(self, name)[alive])


def _draw(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse transform sampling: ids [B] from log-probs [B, V] and one uniform number for each row.

    In float64, and never past the last token with any probability: rounding cannot draw a suppressed token.
    """
    cumulative = log_probs.double().exp().cumsum(dim=-1)
    total = cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, uniforms[:, None].to(total) * total, right=True)[:, 0]
    last_possible = (cumulative < total).sum(dim=-1)
    return torch.minimum(drawn, last_possible)
