"""Preference labels of any kind as pairs of responses, and batches of them.

A label compares some of the pairs of its responses (:data:`~rlhf_dagster.training.reward.terms.LEARNED` says which),
and the pairs share its weight equally, so that a label of many responses counts no more than a label of two
(InstructGPT, arXiv 2203.02155, section 3.5). A tie prefers either response with probability 1/2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import SamplingSettings
from rlhf_dagster.records.chats import Prompt, prompt_of_row
from rlhf_dagster.records.tables import grouped
from rlhf_dagster.training.models.responses import Drawn, own_ids, read_responses
from rlhf_dagster.training.reward.terms import LEARNED
from rlhf_dagster.training.texts.chats.ends import end_id_of
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import TokenIds, encode_prompts, pad


class Pair(NamedTuple):
    first: int
    second: int
    """Indices among the responses compared, ``first < second``."""
    preferred: float
    """Probability that the first is preferred."""
    weight: float


@dataclass(frozen=True)
class Comparison:
    """A prompt, the responses compared, and what all labels of the comparison say about pairs of them."""

    prompt: TokenIds
    responses: list[TokenIds]
    pairs: list[Pair]


def label_pairs(label: Mapping[str, Any]) -> list[Pair]:
    """The pairs that a row of PREFERENCES says something about; their weights add up to the label's."""
    said = list(LEARNED[label["kind"]].pairs(label))
    return [Pair(first, second, preferred, label["weight"] / len(said)) for first, second, preferred in said]


def merged_pairs(labels: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """The pairs of all labels of one comparison, each once. The loss, linear in `preferred`, stays the same."""
    votes: dict[tuple[int, int], list[Pair]] = {}
    for pair in (pair for label in labels for pair in label_pairs(label)):
        votes.setdefault((pair.first, pair.second), []).append(pair)
    return [_merge(pairs) for pairs in votes.values()]


def _merge(pairs: Sequence[Pair]) -> Pair:
    weight = sum(pair.weight for pair in pairs)
    return pairs[0]._replace(preferred=sum(pair.weight * pair.preferred for pair in pairs) / weight, weight=weight)


def encode_comparisons(
    frame: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingSettings,
    cuts: Cuts | None = None,
    tokenizer_id: str = "",
) -> list[Comparison]:
    """The comparisons of a PREFERENCES table, in its order, as ids that the policy could have sampled.

    A response has at most `sampling.response_tokens`. One that was sampled by the tokenizer with the digest
    ``tokenizer_id`` is read as the ids that were drawn, its end too; of any other the text, which ends with end-of-text
    where lengths vary and it is shorter. Two that are equal where they are cut are no pair, and a comparison without a
    pair is left out; ``cuts`` counts both.
    """
    comparisons, cuts = [], cuts or Cuts()
    for rows in grouped(frame, "comparison_id"):
        asked = prompt_of_row(rows[0])
        prompt = encode_prompts(tokenizer, [asked], sampling.prompt_tokens, cuts)[0]
        cut = read_ids(tokenizer, asked, list(rows[0]["responses"]), sampling, own_ids(rows[0], tokenizer_id), cuts)
        different = [pair for pair in merged_pairs(rows) if cut[pair.first] != cut[pair.second]]
        cuts.compare(not different)
        if different:
            comparisons.append(Comparison(prompt, cut, different))
    return comparisons


def read_ids(
    tokenizer: PreTrainedTokenizerBase,
    asked: Prompt,
    texts: Sequence[str],
    sampling: SamplingSettings,
    drawn: Sequence[TokenIds | None],
    cuts: Cuts,
) -> list[TokenIds]:
    """Responses to one prompt, cut to `sampling.response_tokens`: as ids that were drawn, or those of the text."""
    responses = read_responses(tokenizer, [asked] * len(texts), texts, sampling, drawn)
    for one in responses:
        cuts.responses.count(len(one.body), sampling.response_tokens)
    return [_with_end(one, tokenizer, sampling)[: sampling.response_tokens] for one in responses]


def _with_end(response: Drawn, tokenizer: PreTrainedTokenizerBase, sampling: SamplingSettings) -> TokenIds:
    """The end is the one that was drawn, and of a text the token that ends responses; fixed lengths have none."""
    if sampling.fixed_length:
        return response.body
    return response.body + ([end_id_of(tokenizer)] if response.is_text else response.end)


def collate_pairs(rows: Sequence[Comparison], reference: Sequence[Tensor], pad_id: int) -> dict[str, Tensor]:
    """The N responses of some comparisons, and the P pairs among them.

    ``reference[i]`` are the log-probs [K] of the responses of ``rows[i]`` under the reference policy.

    Returns: ids and mask [N, Q + T] with prompts padded on the left and responses on the right; `tokens` and
    `response_mask` [N, T]; `reference` [N]; `first`, `second` (rows of the N), `preferred` and `weight`, all [P].
    """
    prompts = pad([row.prompt for row in rows for _ in row.responses], pad_id, "left")
    # A last row of one token keeps T above 0 where all responses are empty.
    responses = pad([*(ids for row in rows for ids in row.responses), [pad_id]], pad_id, "right")
    tokens, mask = responses.input_ids[:-1], responses.attention_mask[:-1]
    starts = torch.tensor([0, *(len(row.responses) for row in rows[:-1])]).cumsum(0).tolist()
    pairs = [(start, pair) for start, row in zip(starts, rows, strict=True) for pair in row.pairs]
    return {
        "input_ids": torch.cat([prompts.input_ids, tokens], dim=1),
        "attention_mask": torch.cat([prompts.attention_mask, mask], dim=1),
        "tokens": tokens,
        "response_mask": mask,
        "reference": torch.cat(list(reference)),
        "first": torch.tensor([start + pair.first for start, pair in pairs]),
        "second": torch.tensor([start + pair.second for start, pair in pairs]),
        "preferred": torch.tensor([pair.preferred for _, pair in pairs]),
        "weight": torch.tensor([pair.weight for _, pair in pairs]),
    }
