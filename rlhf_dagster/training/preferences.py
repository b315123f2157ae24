"""Preference labels as batches of token ids, and what the reward model makes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.outcome import ORDERED_KINDS, nested_choices
from rlhf_dagster.training.losses import preference_loss
from rlhf_dagster.training.reward_scores import RewardModel, encode_pairs, score_tokens
from rlhf_dagster.training.specs import RewardModelSpec
from rlhf_dagster.training.tokens import PaddedBatch, TokenIds, pad

N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Choice:
    """The best among some of the responses compared."""

    members: list[int]
    """Their indices."""
    target: list[float]
    """Probability that each is the best of them."""
    weight: float


@dataclass(frozen=True)
class EncodedLabel:
    sequences: list[TokenIds]
    """Prompt and response, one for each response compared."""
    target: list[float]
    """Probability that each is the best."""
    weight: float
    later: list[Choice] = field(default_factory=list)
    """Of a ranking: the best of the rest, and so on."""

    @property
    def choices(self) -> list[Choice]:
        return [Choice(list(range(len(self.target))), self.target, self.weight), *self.later]


def merge_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each comparison: the mean of its labels' targets, with the sum of their weights.

    The cross-entropy is linear in the target, so the loss and its gradient are those of the separate labels, for one
    forward pass instead of one for each annotator.

    The column ``later`` (lists of :class:`Choice`) holds what rankings and ratings say beyond the best responses: the
    best of the rest, and so on (:func:`~rlhf_dagster.labeling.outcome.nested_choices`), merged in the same way. The
    losses of all choices of an order without ties, each with the label's weight, add up to the negative Plackett-Luce
    log-likelihood; a pair and a best of K are one choice.
    """
    rows = []
    for _, labels in frame.groupby("comparison_id", sort=False):
        weights = labels["weight"].to_numpy(dtype=float)
        target = np.average(np.stack(labels["target"].tolist()), axis=0, weights=weights)
        merged = {"target": target.tolist(), "weight": float(weights.sum()), "later": _later_choices(labels)}
        rows.append(labels.iloc[0].to_dict() | merged)
    return pd.DataFrame(rows, columns=[*frame.columns, "later"])


def _later_choices(labels: pd.DataFrame) -> list[Choice]:
    """The choices after the first of one comparison's rankings and ratings."""
    ordered = labels[labels["kind"].isin(ORDERED_KINDS)]
    totals: dict[tuple[int, ...], np.ndarray] = {}
    weights: dict[tuple[int, ...], float] = {}
    for ranks, weight in zip(ordered["ranks"], ordered["weight"], strict=True):
        for members, target in nested_choices([int(rank) for rank in ranks])[1:]:
            key = tuple(members)
            totals[key] = totals.get(key, 0.0) + weight * np.array(target)
            weights[key] = weights.get(key, 0.0) + weight
    return [Choice(list(key), (total / weights[key]).tolist(), weights[key]) for key, total in totals.items()]


def encode_labels(frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, spec: RewardModelSpec) -> list[EncodedLabel]:
    """The rows of a PREFERENCES table as ids; a label may compare any number of responses.

    Rankings have their later choices only in rows of :func:`merge_labels`.
    """
    labels = []
    for row in frame.to_dict("records"):
        prompts, responses = [row["prompt"]] * len(row["responses"]), list(row["responses"])
        sequences = encode_pairs(tokenizer, prompts, responses, spec.sampling, spec.settings.max_tokens)
        target = [float(share) for share in row["target"]]
        labels.append(EncodedLabel(sequences, target, float(row["weight"]), row.get("later", [])))
    return labels


def check_labels(frame: pd.DataFrame, path: Path) -> None:
    """Raise UserError at the first label that no loss can be computed for."""
    for row in frame.to_dict("records"):
        if len(row["responses"]) != len(row["target"]) or len(row["responses"]) < 2:
            raise UserError(f"{path}: label {row['label_id']} needs at least 2 responses and as many targets.")
        if row["kind"] in ORDERED_KINDS and len(row["ranks"]) != len(row["responses"]):
            raise UserError(f"{path}: label {row['label_id']} needs a rank for each response; make the table again.")
        if not math.isclose(float(sum(row["target"])), 1.0, abs_tol=1e-3):
            raise UserError(
                f"{path}: label {row['label_id']} has a target that does not sum to 1; make the table again."
            )


def collate(rows: Sequence[EncodedLabel], pad_id: int) -> dict[str, Tensor]:
    """Ids and mask [N, L] of all responses, label by label, and the B choices among them.

    Of each choice: target and mask [B, K]; index [B, K], the rows of its responses; weight [B].
    """
    sequences = pad([ids for row in rows for ids in row.sequences], pad_id, "right")
    choices, indices = [], []
    first = 0
    for row in rows:
        choices += row.choices
        indices += [[first + member for member in choice.members] for choice in row.choices]
        first += len(row.sequences)
    width = max(len(choice.members) for choice in choices)
    return {
        "input_ids": sequences.input_ids,
        "attention_mask": sequences.attention_mask,
        "target": torch.tensor([_padded(choice.target, width, 0.0) for choice in choices]),
        "mask": torch.tensor([_padded([1] * len(choice.members), width, 0) for choice in choices]),
        "index": torch.tensor([_padded(index, width, 0) for index in indices]),
        "weight": torch.tensor([choice.weight for choice in choices]),
    }


def _padded(values: list[N], width: int, value: N) -> list[N]:
    return values + [value] * (width - len(values))


def label_scores(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Scores [B, K] of a collated batch, 0 at the padding of choices with fewer responses.

    Each response is scored once, however many choices it is in.
    """
    flat = score_tokens(model, PaddedBatch(batch["input_ids"], batch["attention_mask"]))
    return torch.where(batch["mask"].bool(), flat[batch["index"]], 0.0)


@torch.no_grad()
def evaluate(reward_model: RewardModel, labels: Sequence[EncodedLabel], batch_size: int) -> dict[str, float]:
    """Loss in nats, number of labels, and the share of decided labels whose best response has the highest score."""
    correct = decided = total = weight = 0.0
    for start in range(0, len(labels), batch_size):
        batch = collate(labels[start : start + batch_size], reward_model.tokenizer.pad_token_id)
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
