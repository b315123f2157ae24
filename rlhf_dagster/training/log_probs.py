"""Log-probabilities of response tokens, computed in one way for the policy, the old policy and the reference.

Temperature and suppressed tokens are part of the policy: every log-prob uses logits / temperature (Ziegler et al. 2019,
`policy.py`) with the suppressed tokens taken out, so that the ratio of the sampling policy to itself is exactly 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.training.settings import SamplingSettings
from rlhf_dagster.training.tokens import position_ids


@dataclass(frozen=True)
class Decoding:
    """What turns logits into the policy's distribution, and when a response is over."""

    temperature: float
    max_tokens: int
    fixed_length: bool
    pad_id: int
    end_id: int
    suppressed: tuple[int, ...]
    """Ids that can never be drawn."""


def decoding_of(tokenizer: PreTrainedTokenizerBase, sampling: SamplingSettings) -> Decoding:
    """Padding and the unknown token are never drawn; end-of-text is not either where responses have a fixed length."""
    never = {tokenizer.pad_token_id, tokenizer.unk_token_id} - {None, tokenizer.eos_token_id}
    if sampling.fixed_length:
        never.add(tokenizer.eos_token_id)
    return Decoding(
        temperature=sampling.temperature,
        max_tokens=sampling.response_tokens,
        fixed_length=sampling.fixed_length,
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
        suppressed=tuple(sorted(never)),
    )


def policy_log_softmax(logits: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs [..., V] of the policy that is sampled, -inf at suppressed tokens, in float32."""
    scaled = logits.float() / decoding.temperature
    suppressed = torch.tensor(decoding.suppressed, dtype=torch.long, device=logits.device)
    return scaled.index_fill(-1, suppressed, -torch.inf).log_softmax(dim=-1)


def token_log_probs(logits: Tensor, tokens: Tensor, mask: Tensor, decoding: Decoding) -> Tensor:
    """Log-probs [B, T] of ``tokens`` [B, T] from ``logits`` [B, T, V]; 0 where ``mask`` [B, T] is 0."""
    gathered = policy_log_softmax(logits, decoding).gather(-1, tokens[..., None])[..., 0]
    # Padding is itself suppressed: its log-prob is -inf, which a product with 0 would turn into NaN.
    return gathered.masked_fill(mask == 0, 0.0)


def response_outputs(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, response_tokens: int, hidden: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Logits [B, T, V] that predict the last T tokens and, where asked, the hidden states [B, T, d] they came from.

    The head runs on those T positions alone, and the last token, which predicts nothing, is not fed.

    Args:
        model: a causal language model.
        input_ids: [B, Q + T] prompts, padded on the left, and responses, padded on the right.
        attention_mask: [B, Q + T] 1 at real tokens.
        response_tokens: T.
        hidden: whether to return hidden states (after the final norm).
    """
    mask = attention_mask[:, :-1]
    outputs = model(
        input_ids=input_ids[:, :-1],
        attention_mask=mask,
        position_ids=position_ids(mask),
        logits_to_keep=response_tokens,
        output_hidden_states=hidden,
        use_cache=False,
    )
    states = outputs.hidden_states[-1][:, -response_tokens:] if hidden else None
    return outputs.logits, states
