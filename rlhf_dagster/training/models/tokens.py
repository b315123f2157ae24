"""From texts to padded batches of token ids, and the positions of their tokens.

A prompt and its response are always encoded apart and joined as ids: a tokenizer may merge characters across the
border, and then the ids of the whole are not the ids that a policy samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.training.models.chat import encode_chats, reads_chats
from rlhf_dagster.training.models.special_tokens import encode_text

TokenIds = list[int]


class PaddedBatch(NamedTuple):
    input_ids: Tensor
    """[B, L] int64."""
    attention_mask: Tensor
    """[B, L] int64, 1 at real tokens."""

    def to(self, device: torch.device) -> "PaddedBatch":
        return PaddedBatch(self.input_ids.to(device), self.attention_mask.to(device))


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_tokens: int) -> list[TokenIds]:
    """Ids of each prompt, cut on the left to ``max_tokens``, after the tokenizer's begin-of-text token, if it adds one.

    An empty prompt becomes one end-of-text token, from which GPT-2 begins a document. A checkpoint whose prompts are
    chats has them encoded by :func:`rlhf_dagster.training.models.chat.encode_chats`.
    """
    if not prompts:
        return []
    if reads_chats(tokenizer):
        return encode_chats(tokenizer, prompts, max_tokens)
    begin = [tokenizer.bos_token_id] if _adds_begin(tokenizer) else []
    room = max_tokens - len(begin)
    encoded = encode_text(tokenizer, prompts)
    return [begin + ids[max(len(ids) - room, 0) :] or [tokenizer.eos_token_id] for ids in encoded]


def encode_responses(tokenizer: PreTrainedTokenizerBase, responses: Sequence[str], add_end: bool) -> list[TokenIds]:
    """Ids of each response, with the end-of-text token where ``add_end``."""
    end = [tokenizer.eos_token_id] if add_end else []
    return [ids + end for ids in encode_text(tokenizer, responses)]


def pad(sequences: Sequence[TokenIds], pad_id: int, side: str) -> PaddedBatch:
    """Pad to the longest sequence, on the ``left`` (sampling) or on the ``right`` (training and scoring)."""
    width = max(map(len, sequences))
    rows, masks = [], []
    for ids in sequences:
        gap = width - len(ids)
        padding, zeros = [pad_id] * gap, [0] * gap
        rows.append(padding + ids if side == "left" else ids + padding)
        masks.append(zeros + [1] * len(ids) if side == "left" else [1] * len(ids) + zeros)
    return PaddedBatch(torch.tensor(rows), torch.tensor(masks))


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions [B, L] that count real tokens from 0, so that left padding does not move a text."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def _adds_begin(tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
