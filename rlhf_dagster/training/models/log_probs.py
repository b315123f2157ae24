"""Log-probabilities of response tokens, computed in one way for the policy, the old policy and the reference.

Temperature and suppressed tokens are part of the policy: every log-prob uses logits / temperature (Ziegler et al. 2019,
`policy.py`) with the suppressed tokens taken out, so that the ratio of the sampling policy to itself is exactly 1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.training.models.layout import moved_left
from rlhf_dagster.training.models.reading import accepted, arguments, reading_of, takes
from rlhf_dagster.training.texts.chats.ends import end_id_of, other_ends_of
from rlhf_dagster.training.texts.tokens import PaddedBatch


@dataclass(frozen=True)
class Decoding:
    """What turns logits into the policy's distribution, and when a response is over."""

    temperature: float
    max_tokens: int
    fixed_length: bool
    pad_id: int
    end_id: int
    """The end-of-text token, which ends a response that is not cut."""
    suppressed: tuple[int, ...]
    """Ids that can never be drawn."""
    vocabulary: int | None = None
    """Ids from this one on are no token's, and never drawn either; a model may have more rows than tokens."""
    other_ends: tuple[int, ...] = ()
    """Further ids that end a response where they are drawn."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every id that ends a response, ``end_id`` first."""
        return (self.end_id, *self.other_ends)

    def is_end(self, tokens: Tensor) -> Tensor:
        """[...] bool, which of ``tokens`` end a response."""
        ends = tokens == self.end_id
        for other in self.other_ends:
            ends = ends | (tokens == other)
        return ends

    def never_drawn(self, rows: int) -> list[int]:
        """All ids that cannot be drawn from an output head of ``rows`` rows."""
        return [*self.suppressed, *range(rows if self.vocabulary is None else self.vocabulary, rows)]


def decoding_of(tokenizer: PreTrainedTokenizerBase, sampling: SamplingSettings) -> Decoding:
    """Padding and the unknown token are never drawn; what ends a response is not either where its length is fixed.

    An id that is no token's is never drawn: it has no text.
    """
    end_id, other_ends = end_id_of(tokenizer), other_ends_of(tokenizer)
    known = set(tokenizer.get_vocab().values())
    vocabulary = max(known) + 1
    never = {tokenizer.pad_token_id, tokenizer.unk_token_id} - {None, tokenizer.eos_token_id}
    never |= set(range(vocabulary)) - known
    if sampling.fixed_length:
        never |= {end_id, *other_ends}
    return Decoding(
        temperature=sampling.temperature,
        max_tokens=sampling.response_tokens,
        fixed_length=sampling.fixed_length,
        pad_id=tokenizer.pad_token_id,
        end_id=end_id,
        suppressed=tuple(sorted(never)),
        other_ends=other_ends,
        vocabulary=vocabulary,
    )


def policy_log_softmax(logits: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs [..., V] of the policy that is sampled, -inf at suppressed tokens, in float32."""
    # One copy of the logits, not two: with a large vocabulary each costs as much as the softmax.
    scaled = logits.float().clone() if decoding.temperature == 1 else logits.float() / decoding.temperature
    suppressed = torch.tensor(decoding.suppressed, dtype=torch.long, device=logits.device)
    if decoding.vocabulary is not None:
        scaled[..., decoding.vocabulary :] = -torch.inf
    return scaled.index_fill_(-1, suppressed, -torch.inf).log_softmax(dim=-1)


def token_log_probs(logits: Tensor, tokens: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs [B, T] of ``tokens`` [B, T] from ``logits`` [B, T, V]; 0 where ``mask`` [B, T] is 0."""
    return where_real(drawn_log_probs(logits, tokens, decoding), mask)


def drawn_log_probs(logits: Tensor, tokens: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs [...] of ``tokens`` [...] from ``logits`` [..., V], -inf at suppressed tokens."""
    return cast("Tensor", _TokenLogProbs.apply(logits, tokens, decoding))


def where_real(log_probs: Tensor, mask: Tensor) -> Tensor:
    """``log_probs`` [B, T], 0 where ``mask`` [B, T] is 0."""
    # Padding is itself suppressed: its log-prob is -inf, which a product with 0 would turn into NaN.
    return log_probs.masked_fill(mask == 0, 0.0)


class _TokenLogProbs(torch.autograd.Function):
    """Log-probs [...] of tokens, with a backward pass that makes one [..., V] tensor instead of five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, decoding: Decoding) -> Tensor:
        log_probs = policy_log_softmax(logits, decoding)
        ctx.save_for_backward(log_probs, tokens)
        ctx.temperature, ctx.dtype = decoding.temperature, logits.dtype
        return log_probs.gather(-1, tokens[..., None])[..., 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """d log p_y / d logits = (one-hot of y - p) / temperature; p is 0 at suppressed tokens."""
        log_probs, tokens = ctx.saved_tensors
        scaled = (gradients[0] / ctx.temperature)[..., None]
        result = log_probs.exp().mul_(-scaled)
        return result.scatter_add_(-1, tokens[..., None], scaled).to(ctx.dtype), None, None


def response_outputs(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, response_tokens: int, hidden: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Logits [B, T, V] that predict the last T tokens and, where asked, the hidden states [B, T, d] they came from.

    The head runs on those T positions alone, and the last token, which predicts nothing, is not fed. Rows are laid out
    as the model reads them (:func:`~rlhf_dagster.training.models.reading.reading_of`).

    Args:
        model: a causal language model.
        input_ids: [B, Q + T] prompts, padded on the left, and responses, padded on the right.
        attention_mask: [B, Q + T] 1 at real tokens.
        response_tokens: T.
        hidden: whether to return hidden states (after the final norm).
    """
    read = response_reading(model, PaddedBatch(input_ids, attention_mask), response_tokens)
    if reading_of(model).padding == "left" and takes(model, "logits_to_keep"):
        with head_inputs(model, hidden) as states:
            logits = model(**read.given, logits_to_keep=response_tokens).logits
        return logits, states[0] if hidden else None
    with head_states(model, read.choose) as states:
        logits = model(**read.given).logits
    return logits, states[0] if hidden else None


class ResponseReading(NamedTuple):
    """A forward pass over prompts and responses."""

    given: dict[str, Any]
    """Its arguments."""
    choose: Callable[[Tensor], Tensor]
    """From the states [B, L, d] that the head could read, those [B, T, d] that predict the responses' tokens."""


def response_reading(model: PreTrainedModel, batch: PaddedBatch, response_tokens: int) -> ResponseReading:
    """How ``model`` reads ``batch`` [B, Q + T] without its last token, and where the last T tokens are predicted."""
    read = PaddedBatch(batch.input_ids[:, :-1], batch.attention_mask[:, :-1])
    if reading_of(model).padding == "left":
        given = accepted(model, **arguments(model, read), use_cache=False)
        return ResponseReading(given, lambda states: states[:, -response_tokens:])
    moved = moved_left(read)
    places, ids = moved.places[:, -response_tokens:, None], moved.batch.input_ids
    given = accepted(model, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return ResponseReading(given, lambda states: states.gather(1, places.expand(-1, -1, states.shape[-1])))


@contextmanager
def head_inputs(model: PreTrainedModel, wanted: bool = True) -> Iterator[list[Tensor]]:
    """A list to which each forward pass adds the hidden states that the output head reads, where ``wanted``.

    The model's own `output_hidden_states` would hold those of every layer.
    """
    states: list[Tensor] = []
    if not wanted:
        yield states
        return
    head = cast("torch.nn.Module", model.get_output_embeddings())
    hook = head.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    try:
        yield states
    finally:
        hook.remove()


@contextmanager
def head_on(model: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """The output head runs on the N true ``positions`` [B, L] alone, so that logits are [N, V], in their order.

    ``model`` may be wrapped for training on several ranks.
    """
    with head_states(model, lambda states: states[positions]):
        yield


@contextmanager
def head_states(model: PreTrainedModel, choose: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """The output head reads what ``choose`` takes from the hidden states [B, L, d], which is added to the list."""
    chosen: list[Tensor] = []

    def read(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        chosen.append(choose(inputs[0]))
        return (chosen[-1],)

    head = cast("torch.nn.Module", getattr(model, "module", model).get_output_embeddings())
    hook = head.register_forward_pre_hook(read)
    try:
        yield chosen
    finally:
        hook.remove()
