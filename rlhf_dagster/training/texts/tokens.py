"""From texts to padded batches of token ids and back, and the positions of their tokens.

A prompt and its response are always encoded apart and joined as ids: a tokenizer may merge characters across the
border, and then the ids of the whole are not the ids that a policy samples. A response is read as text that goes on
where its prompt ends, so that prompt and response together are decoded to what they were.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.texts.chats.encoding import encode_chats, reads_chats, require_texts
from rlhf_dagster.training.texts.chats.ends import end_id_of
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.special_tokens import encode_text
from rlhf_dagster.training.texts.tokenizer_twins import starts_with_space

TokenIds = list[int]
CONTEXT = 16
"""Tokens of a prompt that decide how the response after it is spelt."""
BYTES_OF_CHARACTER = 4
"""At most, in UTF-8."""
REPLACEMENT, NO_CHARACTER = "\ufffd", "\u25a1"


class PaddedBatch(NamedTuple):
    input_ids: Tensor
    """[B, L] int64."""
    attention_mask: Tensor
    """[B, L] int64, 1 at real tokens."""

    def to(self, device: torch.device) -> "PaddedBatch":
        return PaddedBatch(self.input_ids.to(device), self.attention_mask.to(device))


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_tokens: int, cuts: Cuts | None = None
) -> list[TokenIds]:
    """Ids of each prompt, cut on the left to ``max_tokens``, after the tokens that the tokenizer puts before a text.

    An empty prompt becomes one end-of-text token where there are none, from which GPT-2 begins a document. A checkpoint
    whose prompts are chats has them encoded by :func:`~rlhf_dagster.training.texts.chats.encoding.encode_chats`; any
    other raises UserError for messages, and where the tokens before a text leave no room. ``cuts`` counts what is lost.
    """
    if not prompts:
        return []
    if reads_chats(tokenizer):
        return encode_chats(tokenizer, prompts, max_tokens, cuts)
    before = tokens_before(tokenizer)
    if (room := max_tokens - len(before)) < 1:
        raise UserError(
            f"sampling.prompt_tokens is {max_tokens} and the tokenizer puts {len(before)} before each prompt; raise it."
        )
    encoded = encode_text(tokenizer, require_texts(prompts))
    if cuts is not None:
        for ids in encoded:
            cuts.prompts.count(len(ids), room)
    return [before + ids[max(len(ids) - room, 0) :] or [tokenizer.eos_token_id] for ids in encoded]


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[TokenIds]:
    """Ids of each text as a document, from the tokens that the tokenizer puts before a text to end-of-text."""
    before, end = tokens_before(tokenizer), [tokenizer.eos_token_id]
    return [before + ids + end for ids in encode_text(tokenizer, texts)]


def encode_responses(
    tokenizer: PreTrainedTokenizerBase, responses: Sequence[str], add_end: bool, prompts: Sequence[Prompt] | None = None
) -> list[TokenIds]:
    """Ids of each response, with the token that ends responses (:func:`end_id_of`) where ``add_end``.

    A response goes on where its prompt ends: no space comes between them that is in neither. One to an empty prompt, or
    without ``prompts``, begins a document.
    """
    end = [end_id_of(tokenizer)] if add_end else []
    if prompts is None or not starts_with_space(tokenizer):
        return [ids + end for ids in encode_text(tokenizer, responses)]
    rows = [(bool(prompt) or reads_chats(tokenizer), text) for prompt, text in zip(prompts, responses, strict=True)]
    opening = iter(encode_text(tokenizer, [text for goes_on, text in rows if not goes_on]))
    continued = iter(encode_text(tokenizer, [text for goes_on, text in rows if goes_on], continued=True))
    return [next(continued if goes_on else opening) + end for goes_on, _ in rows]


def decode_responses(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]
) -> list[str]:
    """The text of each response as it stands after its prompt, without special tokens.

    Read alone, many tokenizers take away the space with which a response begins. Half a character at the end, where a
    response was cut, is left out, and what is no character within it is shown as a white square: neither was drawn as
    the replacement character (U+FFFD), which Unicode has in its place.
    """
    texts = _texts_after(tokenizer, prompts, responses)
    for row, text in enumerate(texts):
        if text.endswith(REPLACEMENT):
            shorter = [list(responses[row])[:-k] for k in range(1, BYTES_OF_CHARACTER + 1)]
            ends = [text, *_texts_after(tokenizer, [prompts[row]] * len(shorter), shorter)]
            # Some tokenizers give up whole characters beside the half one: without its tokens these are there.
            texts[row] = max((end.rstrip(REPLACEMENT) for end in ends), key=len)
    return [text.replace(REPLACEMENT, NO_CHARACTER) for text in texts]


def _texts_after(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[TokenIds], responses: Sequence[TokenIds]
) -> list[str]:
    contexts = [list(ids)[-CONTEXT:] for ids in prompts]
    befores = _decode(tokenizer, contexts)
    wholes = _decode(tokenizer, [[*context, *ids] for context, ids in zip(contexts, responses, strict=True)])
    joined = tokenizer.convert_tokens_to_string(["a", "b"]) == "a b"
    found = [_after(before, whole, joined) for before, whole in zip(befores, wholes, strict=True)]
    alone = iter(_decode(tokenizer, [list(ids) for text, ids in zip(found, responses, strict=True) if text is None]))
    return [next(alone) if text is None else text for text in found]


def _decode(tokenizer: PreTrainedTokenizerBase, rows: list[TokenIds]) -> list[str]:
    return list(tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _after(before: str, whole: str, joined: bool) -> str | None:
    """What ``whole`` has after ``before``, None if it begins otherwise; where words are ``joined``, no space."""
    start = before.rstrip(REPLACEMENT)  # half a character, which a response may complete
    if not whole.startswith(start):
        return None
    found = whole[len(start) :]
    return found.removeprefix(" ") if joined and start else found


def tokens_before(tokenizer: PreTrainedTokenizerBase) -> TokenIds:
    """What a tokenizer puts before a text, such as a begin-of-text token."""
    for text in ("a", "1", "."):
        whole, own = tokenizer(text)["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
        starts = [start for start in range(len(whole)) if own and whole[start : start + len(own)] == own]
        if starts:
            return list(whole[: starts[0]])
    return []


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
