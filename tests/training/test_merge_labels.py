"""Labels of one comparison are trained on together: the same loss and gradient for fewer forward passes."""

import numpy as np
import pandas as pd
import torch

from rlhf_dagster.training.losses import preference_loss
from rlhf_dagster.training.preferences import merge_labels

LABELS = pd.DataFrame(
    {
        "comparison_id": ["a", "b", "a", "a"],
        "target": [[1.0, 0.0, 0.0], [0.5, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        "weight": [1.0, 1.0, 1.0, 2.0],
    }
)


def test_targets_are_averaged_by_weight_and_weights_added() -> None:
    merged = merge_labels(LABELS)
    assert merged["comparison_id"].tolist() == ["a", "b"]
    assert np.allclose(merged["target"][0], [0.75, 0.25, 0.0])
    assert merged["target"][1] == [0.5, 0.5]
    assert merged["weight"].tolist() == [4.0, 1.0]


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
