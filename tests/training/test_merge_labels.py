"""Labels of one comparison are trained on together: the same loss and gradient for fewer forward passes."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from rlhf_dagster.labeling.outcome import target
from rlhf_dagster.training import preferences
from rlhf_dagster.training.losses import preference_loss
from rlhf_dagster.training.preferences import Choice, EncodedLabel, collate, label_scores, merge_labels

LABELS = pd.DataFrame(
    {
        "comparison_id": ["a", "b", "a", "a"],
        "target": [[1.0, 0.0, 0.0], [0.5, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        "weight": [1.0, 1.0, 1.0, 2.0],
        "kind": ["best_of_k", "pair", "best_of_k", "best_of_k"],
        "ranks": [[1, 2, 2], [1, 1], [2, 1, 2], [1, 2, 2]],
    }
)


def test_targets_are_averaged_by_weight_and_weights_added() -> None:
    merged = merge_labels(LABELS)
    assert merged["comparison_id"].tolist() == ["a", "b"]
    assert np.allclose(merged["target"][0], [0.75, 0.25, 0.0])
    assert merged["target"][1] == [0.5, 0.5]
    assert merged["weight"].tolist() == [4.0, 1.0]
    assert merged["later"].tolist() == [[], []]


def test_loss_and_gradient_are_those_of_the_separate_labels() -> None:
    scores = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    separate = LABELS[LABELS["comparison_id"] == "a"]
    merged = merge_labels(separate)
    gradients = []
    for frame in (separate, merged):
        target, weight = torch.tensor(frame["target"].tolist()), torch.tensor(frame["weight"].tolist())
        loss = preference_loss(scores.expand(len(frame), 3), target, torch.ones(len(frame), 3), weight)
        gradients.append((loss.item(), torch.autograd.grad(loss, scores)[0]))
    assert np.isclose(gradients[0][0], gradients[1][0])
    assert torch.allclose(gradients[0][1], gradients[1][1])


def rankings(*ranks: list[int], weights: list[float] | None = None) -> pd.DataFrame:
    """Rankings of one comparison."""
    return pd.DataFrame(
        {
            "comparison_id": "a",
            "kind": "ranking",
            "ranks": ranks,
            "target": [target(given) for given in ranks],
            "weight": weights or [1.0] * len(ranks),
        }
    )


@pytest.fixture
def summed_loss(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``summed_loss(frame, scores)``: the loss of all choices, as training computes it, times their weights."""

    def compute(frame: pd.DataFrame, scores: Tensor) -> Tensor:
        merged = merge_labels(frame)
        labels = [
            EncodedLabel([[7]] * len(row["target"]), row["target"], row["weight"], row["later"])
            for row in merged.to_dict("records")
        ]
        batch = collate(labels, pad_id=0)
        monkeypatch.setattr(preferences, "score_tokens", lambda model, batch: scores)
        loss = preference_loss(label_scores(None, batch), batch["target"], batch["mask"], batch["weight"])
        return loss * batch["weight"].sum()

    return compute


def test_the_loss_of_a_strict_order_is_the_plackett_luce_likelihood_by_hand(summed_loss: Any) -> None:
    # Scores log 2, log 1, log 4 of three responses, ranked 2, 3, 1: 4 / (2 + 1 + 4) * 2 / (2 + 1) = 8 / 21.
    loss = summed_loss(rankings([2, 3, 1]), torch.tensor([2.0, 1.0, 4.0]).log())
    assert loss.item() == pytest.approx(math.log(21 / 8), rel=1e-6)


def test_the_rest_of_a_best_of_k_is_not_compared(summed_loss: Any) -> None:
    best_of_k = rankings([2, 2, 1]).assign(kind="best_of_k")
    loss = summed_loss(best_of_k, torch.tensor([2.0, 1.0, 4.0]).log())
    assert loss.item() == pytest.approx(math.log(7 / 4), rel=1e-6)


def test_ties_share_the_target_by_hand(summed_loss: Any) -> None:
    # The first choice is between the first and the last of scores log 2, 1, 4; then a single response is left.
    loss = summed_loss(rankings([1, 2, 1]), torch.tensor([2.0, 1.0, 4.0]).log())
    assert loss.item() == pytest.approx(-0.5 * math.log(2 / 7) - 0.5 * math.log(4 / 7), rel=1e-6)


def test_merged_rankings_have_the_loss_and_gradient_of_the_separate_ones(summed_loss: Any) -> None:
    given, weights = [[1, 2, 3, 4], [1, 3, 2, 4], [2, 1, 3, 3], [1, 2, 3, 4]], [1.0, 0.5, 1.0, 2.0]
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1], requires_grad=True)
    together = summed_loss(rankings(*given, weights=weights), scores)
    separate = sum(summed_loss(rankings(ranks, weights=[w]), scores) for ranks, w in zip(given, weights, strict=True))
    assert together.item() == pytest.approx(separate.item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, scores)[0] for loss in (together, separate)]
    torch.testing.assert_close(*gradients)


def test_people_who_agree_on_the_first_share_the_later_choices() -> None:
    later = merge_labels(rankings([1, 2, 3], [1, 3, 2], [2, 1, 3], weights=[1.0, 3.0, 1.0]))["later"][0]
    assert later == [Choice([1, 2], [0.25, 0.75], 4.0), Choice([0, 2], [1.0, 0.0], 1.0)]


def test_each_response_of_a_ranking_is_scored_once() -> None:
    label = EncodedLabel([[1], [2], [3]], [1.0, 0.0, 0.0], 1.0, [Choice([1, 2], [0.0, 1.0], 1.0)])
    pair = EncodedLabel([[4], [5]], [0.5, 0.5], 2.0)
    batch = collate([label, pair], pad_id=0)
    assert batch["input_ids"].tolist() == [[1], [2], [3], [4], [5]]
    assert batch["index"].tolist() == [[0, 1, 2], [1, 2, 0], [3, 4, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert batch["weight"].tolist() == [1.0, 1.0, 2.0]
