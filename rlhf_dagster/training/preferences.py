"""Preference labels as batches of token ids, and what the reward model makes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.losses import preference_loss
from rlhf_dagster.training.reward_scores import RewardModel, encode_pairs, score_tokens
from rlhf_dagster.training.specs import RewardModelSpec
from rlhf_dagster.training.tokens import PaddedBatch, TokenIds, pad


@dataclass(frozen=True)
class EncodedLabel:
    sequences: list[TokenIds]
    """Prompt and response, one for each response compared."""
    target: list[float]
    """Probability that each is the best."""
    weight: float


def merge_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each comparison: the mean of its labels' targets, with the sum of their weights.

    The cross-entropy is linear in the target, so the loss and its gradient are those of the separate labels, for one
    forward pass instead of one for each annotator.
    """
    rows = []
    for _, labels in frame.groupby("comparison_id", sort=False):
        weights = labels["weight"].to_numpy(dtype=float)
        target = np.average(np.stack(labels["target"].tolist()), axis=0, weights=weights)
        rows.append(labels.iloc[0].to_dict() | {"target": target.tolist(), "weight": float(weights.sum())})
    return pd.DataFrame(rows, columns=frame.columns)


def encode_labels(frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, spec: RewardModelSpec) -> list[EncodedLabel]:
    """The rows of a PREFERENCES table as ids; a label may compare any number of responses."""
    labels = []
    for row in frame.to_dict("records"):
        prompts, responses = [row["prompt"]] * len(row["responses"]), list(row["responses"])
        sequences = encode_pairs(tokenizer, prompts, responses, spec.sampling, spec.settings.max_tokens)
        labels.append(EncodedLabel(sequences, [float(share) for share in row["target"]], float(row["weight"])))
    return labels


def check_labels(frame: pd.DataFrame, path: Path) -> None:
    """Raise UserError at the first label that no loss can be computed for."""
    for row in frame.to_dict("records"):
        if len(row["responses"]) != len(row["target"]) or len(row["responses"]) < 2:
            raise UserError(f"{path}: label {row['label_id']} needs at least 2 responses and as many targets.")
        if not math.isclose(float(sum(row["target"])), 1.0, abs_tol=1e-3):
            raise UserError(
                f"{path}: label {row['label_id']} has a target that does not sum to 1; make the table again."
            )


def collate(rows: Sequence[EncodedLabel], pad_id: int) -> dict[str, Tensor]:
    """Ids and mask [N, L] of all responses, label by label; target and mask [B, K]; weight [B]."""
    sequences = pad([ids for row in rows for ids in row.sequences], pad_id, "right")
    width = max(len(row.target) for row in rows)
    return {
        "input_ids": sequences.input_ids,
        "attention_mask": sequences.attention_mask,
        "target": torch.tensor([row.target + [0.0] * (width - len(row.target)) for row in rows]),
        "mask": torch.tensor([[1] * len(row.target) + [0] * (width - len(row.target)) for row in rows]),
        "weight": torch.tensor([row.weight for row in rows]),
    }


def label_scores(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Scores [B, K] of a collated batch, 0 at the padding of labels with fewer responses."""
    flat = score_tokens(model, PaddedBatch(batch["input_ids"], batch["attention_mask"]))
    mask = batch["mask"]
    return torch.zeros(mask.shape, device=flat.device).masked_scatter(mask.bool(), flat)


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
