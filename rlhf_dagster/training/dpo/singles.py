"""Single responses that people liked or did not, each beside a response to another prompt (KTO).

A preference label likes the better response of each pair that it compares and dislikes the worse one, with the pair's
weight; a tie says neither. Feedback says it of one response. All that is said about a response is one
:class:`~rlhf_dagster.training.dpo.pairs.Comparison` of two responses: its own, and one to another prompt by which the
loss measures how far the policy is from its reference (Ethayarajh et al. 2024, arXiv 2402.01306, section 4.1).
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import DpoSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt, prompt_of_row
from rlhf_dagster.records.tables import grouped, records
from rlhf_dagster.training.dpo.pairs import Comparison, Pair, label_pairs, read_ids
from rlhf_dagster.training.models.responses import own_ids
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import TokenIds, encode_prompts


@dataclass
class Opinion:
    """What people say about one response to a prompt."""

    prompt: TokenIds
    response: TokenIds
    liked: float = 0.0
    disliked: float = 0.0
    """Weights."""


@dataclass(frozen=True)
class KindWeights:
    """By what the weights of both kinds are multiplied: lambda_D and lambda_U of the paper."""

    liked: float
    disliked: float


def encode_singles(
    labels: pd.DataFrame,
    feedback: pd.DataFrame | None,
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingSettings,
    cuts: Cuts | None = None,
    tokenizer_id: str = "",
) -> list[Opinion]:
    """What rows of PREFERENCES and of FEEDBACK say about responses, those that are said nothing about left out.

    Responses are read as by :func:`~rlhf_dagster.training.dpo.pairs.encode_comparisons`. Equal ones to the same prompt
    are one response, whoever speaks of it.
    """
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Opinion] = {}
    cuts = cuts or Cuts()
    for asked, text, drawn, liked, disliked in [*_of_labels(labels, tokenizer_id), *_of_feedback(feedback)]:
        prompt = encode_prompts(tokenizer, [asked], sampling.prompt_tokens, cuts)[0]
        response = read_ids(tokenizer, asked, [text], sampling, [drawn], cuts)[0]
        one = found.setdefault((tuple(prompt), tuple(response)), Opinion(prompt, response))
        one.liked, one.disliked = one.liked + liked, one.disliked + disliked
    return list(found.values())


_Judged = tuple[Prompt, str, TokenIds | None, float, float]
"""A prompt, a response as text and as ids that were drawn, and the weights of those who like it and who do not."""


def _of_labels(labels: pd.DataFrame, tokenizer_id: str) -> Iterator[_Judged]:
    for rows in grouped(labels, "comparison_id"):
        asked, drawn = prompt_of_row(rows[0]), own_ids(rows[0], tokenizer_id)
        liked, disliked = _sides(rows)
        for index, text in enumerate(rows[0]["responses"]):
            if liked.get(index) or disliked.get(index):
                yield asked, text, drawn[index], liked.get(index, 0.0), disliked.get(index, 0.0)


def _sides(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[int, float], dict[int, float]]:
    """By response, the weight of the pairs in which it is the better one, and the worse one."""
    liked: dict[int, float] = {}
    disliked: dict[int, float] = {}
    for first, second, preferred, weight in (pair for row in rows for pair in label_pairs(row)):
        if preferred != 0.5:
            better, worse = (first, second) if preferred > 0.5 else (second, first)
            liked[better] = liked.get(better, 0.0) + weight
            disliked[worse] = disliked.get(worse, 0.0) + weight
    return liked, disliked


def _of_feedback(feedback: pd.DataFrame | None) -> Iterator[_Judged]:
    for row in [] if feedback is None else records(feedback):
        weight = float(row["weight"])
        yield prompt_of_row(row), row["response"], None, weight * row["liked"], weight * (not row["liked"])


def kind_weights(said: Sequence[Opinion], settings: DpoSettings) -> KindWeights:
    """The weights of both kinds; raises UserError where they are to be equal in all and one kind is missing."""
    liked, disliked = sum(one.liked for one in said), sum(one.disliked for one in said)
    if settings.desirable_weight is not None:
        return KindWeights(settings.desirable_weight, settings.undesirable_weight)
    if not liked or not disliked:
        kind = "disliked" if liked else "liked"
        raise UserError(
            f"No response to train on is {kind}, so both kinds cannot have the same weight; give feedback of both "
            "kinds, or set `dpo.desirable_weight`."
        )
    return KindWeights(settings.undesirable_weight * disliked / liked, settings.undesirable_weight)


def beside_others(said: Sequence[Opinion], weights: KindWeights, seed: int) -> list[Comparison]:
    """Each response beside the next one that answers another prompt; empty where all answer the same prompt.

    The order is drawn first: in that of a table, the next one would always be the first response to the next prompt,
    and no sample of responses.
    """
    drawn = random.Random(seed).sample(said, len(said))
    others = _next_of_another_prompt(drawn)
    return [] if others is None else [_beside(one, other, weights) for one, other in zip(drawn, others, strict=True)]


def _beside(one: Opinion, other: Opinion, weights: KindWeights) -> Comparison:
    liked, disliked = weights.liked * one.liked, weights.disliked * one.disliked
    pair = Pair(0, 1, liked / (liked + disliked), liked + disliked)
    return Comparison(one.prompt, [one.response, other.response], [pair])


def _next_of_another_prompt(said: Sequence[Opinion]) -> list[Opinion] | None:
    """For each, the next in the circle with another prompt; None where there is no other."""
    if all(one.prompt == said[0].prompt for one in said):
        return None
    found = list(said)
    # Backwards and twice around: the first round leaves at most the last ones of the circle without their next.
    for index in reversed(range(2 * len(said))):
        here, after = index % len(said), (index + 1) % len(said)
        found[here] = said[after] if said[after].prompt != said[here].prompt else found[after]
    return found
