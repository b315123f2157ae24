"""To and from programs that sample rows of ids and know nothing of padded batches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.sampling.backend import Responses
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, pad


def seeds(uniforms: Tensor) -> list[int]:
    """A seed for each row of ``uniforms`` [B, T]: all 53 random bits of its first number."""
    return (uniforms[:, 0].double() * 2**53).long().tolist()


def rows_of(prompts: PaddedBatch) -> list[TokenIds]:
    """The ids of each prompt, without padding."""
    pairs = zip(prompts.input_ids.tolist(), prompts.attention_mask.tolist(), strict=True)
    return [[token for token, kept in zip(ids, mask, strict=True) if kept] for ids, mask in pairs]


def as_responses(
    tokens: Sequence[TokenIds], log_probs: Sequence[Sequence[float]], decoding: Decoding, device: torch.device
) -> Responses:
    """Padded :class:`~rlhf_dagster.training.sampling.backend.Responses` of what another program has drawn.

    Raises:
        UserError: a response is not one that ``decoding`` allows.
    """
    for ids, numbers in zip(tokens, log_probs, strict=True):
        if len(ids) != len(numbers) or not _is_whole(ids, decoding):
            raise UserError(
                f"The rollout backend returned a response of {len(ids)} tokens and {len(numbers)} log-probabilities "
                f"that is neither ended nor {decoding.max_tokens} tokens long; set `compute.rollout_backend: native`."
            )
    padded, mask = pad([*tokens, [decoding.pad_id] * decoding.max_tokens], decoding.pad_id, "right")
    recorded = torch.zeros(padded.shape)
    for row, numbers in enumerate(log_probs):
        recorded[row, : len(numbers)] = torch.tensor(numbers)
    return Responses(padded[:-1].to(device), mask[:-1].to(device), recorded[:-1].to(device), None)


def _is_whole(ids: TokenIds, decoding: Decoding) -> bool:
    if len(ids) == decoding.max_tokens:
        return True
    return not decoding.fixed_length and 0 < len(ids) < decoding.max_tokens and ids[-1] in decoding.end_ids
