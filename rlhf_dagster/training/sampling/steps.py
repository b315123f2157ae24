"""The rows of a batch while they are sampled: a token for each of them at every step."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_dagster.training.models.log_probs import Decoding, head_inputs, policy_log_softmax, response_outputs
from rlhf_dagster.training.models.reading import accepted, reading_of, takes
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.sampling.kv_cache import make_cache
from rlhf_dagster.training.texts.tokens import PaddedBatch, position_ids

KEPT_WHILE_ALIVE = 0.75
"""Ended rows leave the batch once fewer than this share have not ended; this copies the cache of the other rows."""
PAST_NAMES = ("past_key_values", "cache_params")
"""Arguments in which architectures of transformers take what they keep of the tokens before."""


class Steps:
    """The rows that are still being sampled, with all their tokens, which are read again at every step.

    Slow, with work that grows with the square of the length, and right for every model that reads rows right.
    """

    rows_leave = True

    def __init__(self, model: PreTrainedModel, prompts: PaddedBatch, decoding: Decoding) -> None:
        self.model, self.decoding = model, decoding
        self.ids, self.mask = prompts
        self.rows = torch.arange(len(self.ids), device=self.ids.device)
        """[n] their indices in the whole batch."""
        self.alive = torch.ones_like(self.rows, dtype=torch.bool)
        """[n] false where an end was drawn."""

    def step(self, hidden: bool) -> tuple[Tensor, Tensor | None]:
        """Logits [n, V] of the next token and, where asked, the hidden states [n, d] they came from."""
        unknown = self.ids[:, -1:]  # in the place of the token that is predicted, and not read
        ids, mask = torch.cat([self.ids, unknown], dim=1), torch.cat([self.mask, torch.ones_like(unknown)], dim=1)
        logits, states = response_outputs(self.model, ids, mask, 1, hidden)
        return logits[:, -1], None if states is None else states[:, -1]

    def goes_on(self, drawn: Tensor) -> bool:
        """Take in the tokens [n] drawn; false where every row has ended."""
        self.take(drawn[:, None])
        # Tokens after a row's end are seen by that row alone, and are not kept.
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        if self.decoding.fixed_length:
            return True
        self.alive = self.alive & ~self.decoding.is_end(drawn)
        count = int(self.alive.sum())
        if self.rows_leave and 0 < count < KEPT_WHILE_ALIVE * len(self.alive):
            self.keep(self.alive.nonzero()[:, 0])
        return count > 0

    def take(self, tokens: Tensor) -> None:
        """Have the next step read ``tokens`` [n, 1] too."""
        self.ids = torch.cat([self.ids, tokens], dim=1)

    def keep(self, rows: Tensor) -> None:
        """Go on with these ``rows`` [m] alone."""
        for name in ("rows", "alive", "ids", "mask"):
            setattr(self, name, getattr(self, name)[rows])


class CachedSteps(Steps):
    """Rows of which the last token alone is read, with a cache of what stands before it."""

    def __init__(
        self, model: PreTrainedModel, prompts: PaddedBatch, decoding: Decoding, rows_leave: bool = True
    ) -> None:
        super().__init__(model, prompts, decoding)
        self.rows_leave = rows_leave
        self.cache = make_cache(model.config, self.ids.shape[1] + decoding.max_tokens)
        self.past = next(name for name in PAST_NAMES if takes(model, name))
        self.positions = position_ids(self.mask)

    def step(self, hidden: bool) -> tuple[Tensor, Tensor | None]:
        with head_inputs(self.model, hidden) as states:
            logits = self.model(**self._given()).logits
        return logits[:, -1], states[0][:, -1] if hidden else None

    def take(self, tokens: Tensor) -> None:
        self.ids, self.positions = tokens, self.positions[:, -1:] + 1

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        super().keep(rows)
        self.positions = self.positions[rows]

    def _given(self) -> dict[str, Any]:
        given = {"input_ids": self.ids, "attention_mask": self.mask, self.past: self.cache, "use_cache": True}
        if reading_of(self.model).positions:
            given["position_ids"] = self.positions
        if takes(self.model, "logits_to_keep"):
            given["logits_to_keep"] = 1
        return accepted(self.model, **given)


@torch.no_grad()
def run_steps(steps: Steps, uniforms: Tensor | None, value_head: nn.Module | None = None) -> Responses:
    """One response for each row of ``steps``; ``uniforms`` [B, T] are the random numbers behind each token, and None
    takes the likeliest. ``value_head`` maps hidden states [B, d] to values [B, 1]."""
    decoding, device = steps.decoding, steps.ids.device
    shape = (len(steps.rows), decoding.max_tokens)
    tokens, mask = (
        torch.full(shape, decoding.pad_id, device=device),
        torch.zeros(shape, dtype=torch.long, device=device),
    )
    log_probs = torch.zeros(shape, device=device)
    values = None if value_head is None else torch.zeros_like(log_probs)
    for t in range(decoding.max_tokens):
        logits, hidden = steps.step(hidden=value_head is not None)
        distribution = policy_log_softmax(logits, decoding)
        own = steps.rows
        drawn = distribution.argmax(dim=-1) if uniforms is None else draw(distribution, uniforms[own, t])
        tokens[own, t] = torch.where(steps.alive, drawn, decoding.pad_id)
        mask[own, t] = steps.alive.long()
        log_probs[own, t] = distribution.gather(1, drawn[:, None])[:, 0] * steps.alive
        if values is not None and value_head is not None and hidden is not None:
            values[own, t] = value_head(hidden)[:, 0].float() * steps.alive
        if not steps.goes_on(drawn):
            break
    return Responses(tokens, mask, log_probs, values)


def draw(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse transform sampling: ids [B] from log-probs [B, V] and one uniform number for each row.

    In float64, and never past the last token with any probability: rounding cannot draw a suppressed token.
    """
    cumulative = log_probs.double().exp().cumsum(dim=-1)
    total = cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, uniforms[:, None].to(total) * total, right=True)[:, 0]
    last_possible = (cumulative < total).sum(dim=-1)
    return torch.minimum(drawn, last_possible)
