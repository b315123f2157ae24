"""Preference labels as batches of token ids, and what the reward model makes of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.kinds import ORDERED_KINDS, RANKED_KINDS
from rlhf_dagster.records.tables import records
from rlhf_dagster.training.models.responses import own_ids
from rlhf_dagster.training.reward.losses import (
    choice_losses,
    preference_loss,
    rating_losses,
    weighted_mean,
    with_margin,
)
from rlhf_dagster.training.reward.scores import RewardModel, encode_whole_pairs, score_tokens
from rlhf_dagster.training.reward.terms import Terms, different_terms, label_terms, rates
from rlhf_dagster.training.specs import RewardModelSpec
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import PaddedBatch, TokenIds, pad

N = TypeVar("N", int, float)
ChoiceLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class EncodedLabel:
    """What one comparison is trained on, or measured by."""

    sequences: list[TokenIds]
    """Prompt and response, one for each response compared."""
    terms: Terms
    bootstrap: list[float] = field(default_factory=lambda: [1.0])
    """A factor for each head of the reward model, by which it multiplies the label's weights."""

    @property
    def weight(self) -> float:
        """The sum over all terms and heads."""
        own = sum(choice.weight for choice in self.terms.choices) + sum(rating.weight for rating in self.terms.ratings)
        return own * sum(self.bootstrap)


def encode_labels(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, spec: RewardModelSpec, cuts: Cuts | None = None
) -> list[EncodedLabel]:
    """The rows of a PREFERENCES table as ids; a label may compare any number of responses.

    Rows of :func:`~rlhf_dagster.training.reward.terms.merge_labels` come with their terms; the only term of any other
    row is the choice of its best response. Terms that compare what is equal where it is cut are left out, and labels
    without a term; ``cuts`` counts both. A response that was sampled by the tokenizer of ``spec.sft`` is read as the
    ids that were drawn.
    """
    labels, cuts = [], cuts or Cuts()
    own, room = tokenizer_digest(spec.sft), spec.settings.max_tokens
    for row in records(frame):
        prompts, responses = [prompt_of_row(row)] * len(row["responses"]), list(row["responses"])
        whole = encode_whole_pairs(tokenizer, prompts, responses, spec.sampling, own_ids(row, own), cuts)
        sequences = [pair.cut_to(room) for pair in whole]
        terms = different_terms(row["terms"] if "terms" in row else label_terms(row), sequences)
        is_equal = not (terms.choices or terms.ratings)
        for pair in whole:
            cuts.responses.count(len(pair.ids) + len(pair.end), room)
        cuts.compare(is_equal)
        if not is_equal:
            labels.append(EncodedLabel(sequences, terms))
    return labels


def with_bootstrap(labels: Sequence[EncodedLabel], heads: int, seed: int) -> list[EncodedLabel]:
    """Labels with a weight of their own for each head, drawn from Exp(1) (the Bayesian bootstrap, Rubin 1981).

    With a single head, the labels keep their weights.
    """
    if heads == 1:
        return list(labels)
    drawn = np.random.default_rng(seed).exponential(size=(len(labels), heads))
    return [replace(label, bootstrap=weights.tolist()) for label, weights in zip(labels, drawn, strict=True)]


def check_labels(frame: pd.DataFrame, path: Path, settings: RewardModelSettings | None = None) -> None:
    """Raise UserError at the first label that no loss can be computed for, or where settings need what no label has."""
    settings = settings or RewardModelSettings()
    for row in records(frame):
        count = len(row["responses"])
        if count != len(row["target"]) or count < 2:
            raise UserError(f"{path}: label {row['label_id']} needs at least 2 responses and as many targets.")
        if row.get("token_ids") is not None and not len(row["token_ids"]) == len(row["tokenizers"]) == count:
            raise UserError(
                f"{path}: label {row['label_id']} needs token ids and a tokenizer for each response, or none; make the "
                "table again."
            )
        if row["kind"] not in RANKED_KINDS:
            raise UserError(
                f"{path}: label {row['label_id']} has the kind {str(row['kind'])[:40]!r}; a label that is trained on "
                f"has one of: {', '.join(RANKED_KINDS)}."
            )
        if row["kind"] in ORDERED_KINDS and len(row["ranks"]) != count:
            raise UserError(f"{path}: label {row['label_id']} needs a rank for each response; make the table again.")
        if row["kind"] == "rating" and rates(settings) and (row["ratings"] is None or len(row["ratings"]) != count):
            raise UserError(
                f"{path}: label {row['label_id']} needs a rating of each response for `reward_model.rating: "
                f"{settings.rating}`; make the table again, or set `ranks`."
            )
        if min(row["target"]) < 0 or not math.isclose(float(sum(row["target"])), 1.0, abs_tol=1e-3):
            raise UserError(
                f"{path}: label {row['label_id']} has a target that does not sum to 1 or is negative; make the table "
                "again."
            )
        if not 0 < row["weight"] < math.inf:
            raise UserError(
                f"{path}: label {row['label_id']} has the weight {row['weight']:g}, which must be above 0 and finite; "
                "leave out labels that are to count nothing."
            )
    if (settings.margin or settings.soft_targets) and frame["strength"].isna().all():
        name = "margin" if settings.margin else "soft_targets"
        raise UserError(f"{path}: no label has a strength, which `reward_model.{name}` needs; leave that setting out.")


def collate_labels(rows: Sequence[EncodedLabel], pad_id: int) -> dict[str, Tensor]:
    """Ids and mask [N, L] of all responses, label by label, and the C choices and R ratings among them.

    For each choice: `target` and `mask` [C, K]; `index` [C, K], the rows of its responses among the N; `weight` and
    `margin` [C]. For each rating: `rating_index` [R, 2], the rows of the two responses whose difference is rated, or
    the same row twice for the rating of one response; `rating` and `rating_weight` [R]. For each head, the factors of
    the weights: `bootstrap` [C, H] and `rating_bootstrap` [R, H].
    """
    sequences = pad([ids for row in rows for ids in row.sequences], pad_id, "right")
    firsts = np.cumsum([0, *(len(row.sequences) for row in rows)]).tolist()
    choices = [(first, row, choice) for first, row in zip(firsts, rows, strict=False) for choice in row.terms.choices]
    ratings = [(first, row, rating) for first, row in zip(firsts, rows, strict=False) for rating in row.terms.ratings]
    width = max((len(choice.members) for _, _, choice in choices), default=2)
    rating_index = [[first + rating.members[0], first + rating.members[-1]] for first, _, rating in ratings]
    return {
        "input_ids": sequences.input_ids,
        "attention_mask": sequences.attention_mask,
        "target": _rows([_padded(choice.target, width, 0.0) for _, _, choice in choices], width, torch.float32),
        "mask": _rows([_padded([1] * len(choice.members), width, 0) for _, _, choice in choices], width, torch.int64),
        "index": _rows(
            [_padded([first + member for member in choice.members], width, 0) for first, _, choice in choices],
            width,
            torch.int64,
        ),
        "weight": torch.tensor([choice.weight for _, _, choice in choices]),
        "margin": torch.tensor([choice.margin for _, _, choice in choices]),
        "bootstrap": _rows([row.bootstrap for _, row, _ in choices], len(rows[0].bootstrap), torch.float32),
        "rating_index": _rows(rating_index, 2, torch.int64),
        "rating": torch.tensor([rating.value for _, _, rating in ratings]),
        "rating_weight": torch.tensor([rating.weight for _, _, rating in ratings]),
        "rating_bootstrap": _rows([row.bootstrap for _, row, _ in ratings], len(rows[0].bootstrap), torch.float32),
    }


def _rows(values: list[list[Any]], width: int, dtype: torch.dtype) -> Tensor:
    """A table [n, width], also where n is 0."""
    return torch.tensor(values, dtype=dtype).reshape(len(values), width)


def _padded(values: list[N], width: int, value: N) -> list[N]:
    return values + [value] * (width - len(values))


def label_scores(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Scores [C, K] of a collated batch, the mean over heads, 0 at the padding of choices with fewer responses.

    Each response is scored once, however many choices it is in.
    """
    flat = score_tokens(model, PaddedBatch(batch["input_ids"], batch["attention_mask"]))
    return torch.where(batch["mask"].bool(), flat[batch["index"]], 0.0)


def label_loss(heads: Tensor, batch: dict[str, Tensor], choice_loss: ChoiceLoss = choice_losses) -> Tensor:
    """The loss, a scalar, of a collated batch whose responses have ``heads`` [N, H] scores.

    The mean over all choices, ratings and heads, by their weights. ``choice_loss`` gives the losses [B] of choices by
    scores, target and mask, all [B, K].
    """
    losses, weights = [], []
    for head, scores in enumerate(heads.unbind(dim=-1)):
        mask, target = batch["mask"], batch["target"]
        compared = torch.where(mask.bool(), scores[batch["index"]], 0.0)
        losses.append(choice_loss(with_margin(compared, target, batch["margin"]), target, mask))
        losses.append(rating_losses(_rated(scores, batch["rating_index"]), batch["rating"]))
        weights.append(batch["weight"] * batch["bootstrap"][:, head])
        weights.append(batch["rating_weight"] * batch["rating_bootstrap"][:, head])
    return weighted_mean(torch.cat(losses), torch.cat(weights))


def _rated(scores: Tensor, index: Tensor) -> Tensor:
    """Predictions [R] of the ratings: the score of a response, or the difference of two scores."""
    first, second = index.unbind(dim=-1)
    return scores[first] - torch.where(first == second, 0.0, scores[second])


@torch.no_grad()
def evaluate(reward_model: RewardModel, labels: Sequence[EncodedLabel], batch_size: int) -> dict[str, float]:
    """Loss in nats, number of labels, and the share of decided labels whose best response has the highest score."""
    correct = decided = total = weight = 0.0
    for start in range(0, len(labels), batch_size):
        batch = collate_labels(labels[start : start + batch_size], reward_model.tokenizer.pad_token_id)
        batch = {name: tensor.to(reward_model.device) for name, tensor in batch.items()}
        scores, target, mask = label_scores(reward_model.model, batch), batch["target"], batch["mask"]
        batch_weight = float(batch["weight"].sum())
        total += float(preference_loss(scores, target, mask, batch["weight"])) * batch_weight
        weight += batch_weight
        unique = (target == target.max(dim=1, keepdim=True).values).sum(dim=1) == 1
        best = scores.masked_fill(mask == 0, -torch.inf).argmax(dim=1)
        correct += float(((best == target.argmax(dim=1)) & unique).sum())
        decided += float(unique.sum())
    metrics = {"labels": float(len(labels))}
    if weight:
        metrics["loss"] = total / weight
    if decided:
        metrics |= {"accuracy": correct / decided, "decided_labels": decided}
    return metrics
