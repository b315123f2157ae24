"""The responses that labels compare, as ids: those that a policy drew, where they are known, or those of the text."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.texts.tokens import TokenIds, encode_responses


class Drawn(NamedTuple):
    """A response as ids."""

    body: TokenIds
    """Without what ends it."""
    end: TokenIds
    """The token that a policy drew to end it, if it did."""
    is_text: bool
    """Whether the ids are those of the response's text: nothing is known of its end then."""


def own_ids(row: Mapping[str, Any], tokenizer_id: str) -> list[TokenIds | None]:
    """The ids drawn for each response of a row of PREFERENCES or COMPARISONS.

    None where there are none, or where they are of another tokenizer than the one with this
    :func:`~rlhf_dagster.lineage.model_folders.tokenizer_digest`.
    """
    drawn, tokenizers = row.get("token_ids"), row.get("tokenizers")
    if drawn is None or tokenizers is None:
        return [None] * len(row["responses"])
    return [
        None if ids is None or name != tokenizer_id else [int(token) for token in ids]
        for ids, name in zip(drawn, tokenizers, strict=True)
    ]


def completion_ids(row: Mapping[str, Any], tokenizer_id: str) -> TokenIds | None:
    """The ids drawn for a row of COMPLETIONS; None where they are of no tokenizer that is known, or of another."""
    return [int(token) for token in row["token_ids"]] if row.get("tokenizer") == tokenizer_id else None


def read_responses(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    sampling: SamplingSettings,
    drawn: Sequence[TokenIds | None] | None = None,
) -> list[Drawn]:
    """Each response by its ids in ``drawn``, where it has some; otherwise its text is read where its prompt ends."""
    drawn = [None] * len(responses) if drawn is None else drawn
    texts = [(prompt, text) for prompt, text, ids in zip(prompts, responses, drawn, strict=True) if ids is None]
    asked, written = [prompt for prompt, _ in texts], [text for _, text in texts]
    bodies = iter(encode_responses(tokenizer, written, add_end=False, prompts=asked))
    ends = decoding_of(tokenizer, sampling).end_ids
    return [Drawn(next(bodies), [], True) if ids is None else _split(ids, ends) for ids in drawn]


def _split(ids: TokenIds, ends: Sequence[int]) -> Drawn:
    has_end = bool(ids) and ids[-1] in ends
    return Drawn(ids[:-1], ids[-1:], False) if has_end else Drawn(ids, [], False)
