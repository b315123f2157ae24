"""What labels add to the loss; those of one comparison are trained on together, for fewer forward passes."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.outcome import ranks_from_ratings, target
from rlhf_dagster.training.reward.labels import EncodedLabel, collate_labels, label_loss, with_bootstrap
from rlhf_dagster.training.reward.losses import choice_losses, preference_loss
from rlhf_dagster.training.reward.terms import Choice, Rating, Terms, merge_labels
from rlhf_dagster.training.reward.ties import make_tie_model

RANKINGS = ("plackett_luce", "pairs")
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
    assert merged["terms"].tolist() == [
        Terms([Choice([0, 1, 2], [0.75, 0.25, 0.0], 4.0)]),
        Terms([Choice([0, 1], [0.5, 0.5], 1.0)]),
    ]


def test_loss_and_gradient_are_those_of_the_separate_labels() -> None:
    scores = torch.tensor([[0.3, -1.0, 2.0]], requires_grad=True)
    separate = LABELS[LABELS["comparison_id"] == "a"]
    merged = merge_labels(separate)
    gradients = []
    (choice,) = merged["terms"][0].choices
    for targets, weights in ((separate["target"].tolist(), separate["weight"]), ([choice.target], [choice.weight])):
        target, weight = torch.tensor(targets), torch.tensor(list(weights))
        loss = preference_loss(scores.expand(len(target), 3), target, torch.ones(len(target), 3), weight)
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


def summed_loss(frame: pd.DataFrame, scores: Tensor, settings: RewardModelSettings | None = None) -> Tensor:
    """The loss of all terms, as training computes it, times their weights."""
    labels = [
        EncodedLabel([[7]] * len(row["target"]), row["terms"])
        for row in merge_labels(frame, settings).to_dict("records")
    ]
    loss = label_loss(scores.unsqueeze(-1), collate_labels(labels, pad_id=0))
    return loss * sum(label.weight for label in labels)


def test_the_loss_of_a_strict_order_is_the_plackett_luce_likelihood_by_hand() -> None:
    # Scores log 2, log 1, log 4 of three responses, ranked 2, 3, 1: 4 / (2 + 1 + 4) * 2 / (2 + 1) = 8 / 21.
    loss = summed_loss(rankings([2, 3, 1]), torch.tensor([2.0, 1.0, 4.0]).log())
    assert loss.item() == pytest.approx(math.log(21 / 8), rel=1e-6)


def test_the_rest_of_a_best_of_k_is_not_compared() -> None:
    best_of_k = rankings([2, 2, 1]).assign(kind="best_of_k")
    loss = summed_loss(best_of_k, torch.tensor([2.0, 1.0, 4.0]).log())
    assert loss.item() == pytest.approx(math.log(7 / 4), rel=1e-6)


def test_ties_share_the_target_by_hand() -> None:
    # The first choice is between the first and the last of scores log 2, 1, 4; then a single response is left.
    loss = summed_loss(rankings([1, 2, 1]), torch.tensor([2.0, 1.0, 4.0]).log())
    assert loss.item() == pytest.approx(-0.5 * math.log(2 / 7) - 0.5 * math.log(4 / 7), rel=1e-6)


def test_merged_rankings_have_the_loss_and_gradient_of_the_separate_ones() -> None:
    given, weights = [[1, 2, 3, 4], [1, 3, 2, 4], [2, 1, 3, 3], [1, 2, 3, 4]], [1.0, 0.5, 1.0, 2.0]
    scores = torch.tensor([0.3, -1.0, 2.0, 0.1], requires_grad=True)
    together = summed_loss(rankings(*given, weights=weights), scores)
    separate = sum(summed_loss(rankings(ranks, weights=[w]), scores) for ranks, w in zip(given, weights, strict=True))
    assert together.item() == pytest.approx(separate.item(), rel=1e-5)
    gradients = [torch.autograd.grad(loss, scores)[0] for loss in (together, separate)]
    torch.testing.assert_close(*gradients)


def test_people_who_agree_on_the_first_share_the_later_choices() -> None:
    (terms,) = merge_labels(rankings([1, 2, 3], [1, 3, 2], [2, 1, 3], weights=[1.0, 3.0, 1.0]))["terms"]
    assert terms.choices[1:] == [Choice([1, 2], [0.25, 0.75], 4.0), Choice([0, 2], [1.0, 0.0], 1.0)]


def test_each_response_of_a_ranking_is_scored_once() -> None:
    choices = [Choice([0, 1, 2], [1.0, 0.0, 0.0], 1.0), Choice([1, 2], [0.0, 1.0], 1.0, margin=0.5)]
    ranked = EncodedLabel([[1], [2], [3]], Terms(choices), [1.0, 2.0])
    rated = EncodedLabel([[4], [5]], Terms([], [Rating([1], 0.5, 2.0), Rating([0, 1], -1.0, 1.0)]), [3.0, 4.0])
    pair = EncodedLabel([[6], [7]], Terms([Choice([0, 1], [0.5, 0.5], 2.0)]), [5.0, 6.0])
    batch = collate_labels([ranked, rated, pair], pad_id=0)
    assert batch["input_ids"].tolist() == [[1], [2], [3], [4], [5], [6], [7]]
    assert batch["index"].tolist() == [[0, 1, 2], [1, 2, 0], [5, 6, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert batch["weight"].tolist() == [1.0, 1.0, 2.0]
    assert batch["margin"].tolist() == [0.0, 0.5, 0.0]
    assert batch["bootstrap"].tolist() == [[1.0, 2.0], [1.0, 2.0], [5.0, 6.0]]
    assert batch["rating_index"].tolist() == [[4, 4], [3, 4]]
    assert (batch["rating"].tolist(), batch["rating_weight"].tolist()) == ([0.5, -1.0], [2.0, 1.0])
    assert batch["rating_bootstrap"].tolist() == [[3.0, 4.0], [3.0, 4.0]]


def test_all_pairs_of_a_ranking_share_its_weight() -> None:
    scores, pairs = torch.tensor([0.3, -1.0, 2.0, 0.1]), RewardModelSettings(ranking="pairs")
    loss = summed_loss(rankings([2, 3, 1, 3], weights=[1.5]), scores, pairs)
    # Ranks 2, 3, 1, 3: five pairs are decided and one is a tie, each with a sixth of the weight.
    better = [(0, 1), (2, 0), (0, 3), (2, 1), (2, 3)]
    expected = sum(softplus(scores[low] - scores[high]) for high, low in better)
    expected = expected + (softplus(scores[1] - scores[3]) + softplus(scores[3] - scores[1])) / 2
    assert loss.item() == pytest.approx(1.5 * expected.item() / 6, rel=1e-6)


def test_a_ranking_of_two_is_one_pair_either_way() -> None:
    scores = torch.tensor([0.3, -1.0])
    losses = [summed_loss(rankings([2, 1]), scores, RewardModelSettings(ranking=way)) for way in RANKINGS]
    assert losses[0].item() == losses[1].item() == pytest.approx(softplus(torch.tensor(1.3)).item())


def labels_of_strength(*strengths: float | None) -> pd.DataFrame:
    """Labels of one pair, whose first response is the better one."""
    frame = rankings(*[[1, 2]] * len(strengths))
    return frame.assign(kind="pair", strength=pd.Series(strengths, dtype=object))


def test_a_margin_is_in_proportion_to_strength() -> None:
    settings = RewardModelSettings(margin=0.8)
    (terms,) = merge_labels(labels_of_strength(1.0, 0.5, None, 0.5), settings)["terms"]
    assert [(choice.margin, choice.weight) for choice in terms.choices] == [(0.8, 1.0), (0.4, 2.0), (0.0, 1.0)]
    loss = summed_loss(labels_of_strength(0.5), torch.tensor([1.0, 0.2]), settings)
    assert loss.item() == pytest.approx(softplus(torch.tensor(-(1.0 - 0.2 - 0.4))).item(), rel=1e-6)


def test_soft_targets_are_between_an_even_chance_and_certainty() -> None:
    settings = RewardModelSettings(soft_targets=True)
    (terms,) = merge_labels(labels_of_strength(0.5, 1.0), settings)["terms"]
    assert terms.choices == [Choice([0, 1], [0.875, 0.125], 2.0)]


def test_soft_targets_are_no_ties() -> None:
    settings = RewardModelSettings(soft_targets=True, ties="davidson")
    (terms,) = merge_labels(labels_of_strength(0.5), settings)["terms"]
    assert terms.choices == [Choice([0, 1], [1.0, 0.0], 0.75), Choice([0, 1], [0.0, 1.0], 0.25)]


@pytest.mark.parametrize("use", [{"soft_targets": True}, {"margin": 0.8}])
def test_strength_is_that_of_a_pair(use: dict[str, Any]) -> None:
    frame = rankings([2, 1, 2]).assign(kind="best_of_k", strength=0.5)
    (terms,) = merge_labels(frame, RewardModelSettings.parse(use, "f"))["terms"]
    assert terms.choices == [Choice([0, 1, 2], [0.0, 1.0, 0.0], 1.0)]


def test_where_ties_are_outcomes_only_the_same_outcomes_are_merged() -> None:
    frame = rankings([1, 2], [1, 1], [2, 1], [1, 2]).assign(kind="pair")
    (terms,) = merge_labels(frame, RewardModelSettings(ties="davidson"))["terms"]
    assert terms.choices == [
        Choice([0, 1], [1.0, 0.0], 2.0),
        Choice([0, 1], [0.5, 0.5], 1.0),
        Choice([0, 1], [0.0, 1.0], 1.0),
    ]


def rated(*ratings: list[float], weight: float = 1.0) -> pd.DataFrame:
    frame = rankings(*[ranks_from_ratings(given) for given in ratings], weights=[weight] * len(ratings))
    return frame.assign(kind="rating", ratings=list(ratings))


def test_ratings_are_standardised_and_share_the_labels_weight() -> None:
    # Mean 4 and deviation 2.
    (terms,) = merge_labels(rated([2.0, 6.0], weight=3.0), RewardModelSettings(rating="regression"))["terms"]
    assert terms == Terms([], [Rating([0], -1.0, 1.5), Rating([1], 1.0, 1.5)])
    loss = summed_loss(rated([2.0, 6.0]), torch.tensor([0.0, 3.0]), RewardModelSettings(rating="regression"))
    assert loss.item() == pytest.approx((1 + 4) / 2)


def test_differences_of_ratings_do_not_depend_on_how_kind_an_annotator_is() -> None:
    settings = RewardModelSettings(rating="differences")
    (terms,) = merge_labels(rated([2.0, 6.0]), settings)["terms"]
    assert terms == Terms([], [Rating([0, 1], -2.0, 1.0)])
    losses = [summed_loss(rated([2.0, 6.0]), torch.tensor([0.0, 3.0]) + shift, settings) for shift in (0.0, 5.0)]
    assert losses[0].item() == losses[1].item() == pytest.approx((-3 + 2) ** 2)


def test_ratings_that_are_all_the_same_teach_nothing() -> None:
    with pytest.raises(UserError, match="All ratings are the same"):
        merge_labels(rated([3.0, 3.0]), RewardModelSettings(rating="regression"))


@pytest.mark.parametrize("settings", [RewardModelSettings(), RewardModelSettings(rating="differences")])
def test_kinds_mix_in_one_batch_by_their_weights(settings: RewardModelSettings) -> None:
    scores = torch.tensor([0.5, -1.0, 2.0])
    both = pd.concat([rankings([1, 2, 3]), rated([2.0, 6.0, 7.0]).assign(comparison_id="b")], ignore_index=True)
    together = summed_loss(both, scores.repeat(2), settings)
    alone = [summed_loss(part, scores, settings) for _, part in both.groupby("comparison_id")]
    assert together.item() == pytest.approx(sum(loss.item() for loss in alone), rel=1e-6)


def test_heads_have_weights_of_their_own() -> None:
    label = EncodedLabel([[1], [2]], Terms([Choice([0, 1], [1.0, 0.0], 2.0)]))
    drawn = with_bootstrap([label] * 3000, heads=2, seed=1)
    weights = np.array([one.bootstrap for one in drawn])
    # Exp(1) has mean and deviation 1, and the heads are independent.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(weights.std(axis=0), 1, atol=0.12)
    assert abs(np.corrcoef(weights.T)[0, 1]) < 0.08
    assert drawn == with_bootstrap([label] * 3000, heads=2, seed=1)
    assert drawn != with_bootstrap([label] * 3000, heads=2, seed=2)
    assert with_bootstrap([label], heads=1, seed=1) == [label]


def test_the_loss_of_heads_is_their_mean_by_bootstrap_weights() -> None:
    label = EncodedLabel([[1], [2]], Terms([Choice([0, 1], [1.0, 0.0], 2.0)]), [3.0, 1.0])
    heads = torch.tensor([[0.0, 1.0], [0.5, -1.0]])
    expected = (3 * softplus(torch.tensor(0.5)) + 1 * softplus(torch.tensor(-2.0))) / 4
    torch.testing.assert_close(label_loss(heads, collate_labels([label], pad_id=0)), expected)


CHOICES = [Choice([0, 1], [1.0, 0.0], 1.0)] * 6 + [Choice([0, 1], [0.5, 0.5], 1.0)] * 3


def test_models_of_ties_begin_where_equal_responses_tie_as_often_as_labels_do() -> None:
    # Of 9 pairs 3 tie, with half a label more for each outcome: 3.5 of 10.
    for ties in ("davidson", "rao_kupper"):
        model = make_tie_model(RewardModelSettings(ties=ties), CHOICES)
        assert model is not None
        tie = model(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]), torch.ones(1, 2))
        assert math.exp(-tie.item()) == pytest.approx(0.35, rel=1e-5)


def test_rao_kupper_leaves_larger_choices_alone() -> None:
    model = make_tie_model(RewardModelSettings(ties="rao_kupper"), CHOICES)
    scores, target = torch.tensor([[0.3, 1.0, -1.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    assert model is not None
    torch.testing.assert_close(model(scores, target, torch.ones(1, 3)), choice_losses(scores, target, torch.ones(1, 3)))


def test_davidson_has_a_limit() -> None:
    many = Choice(list(range(11)), [1.0] + [0.0] * 10, 1.0)
    with pytest.raises(UserError, match="compares 11 responses"):
        make_tie_model(RewardModelSettings(ties="davidson"), [many])


@pytest.mark.parametrize("ties", ["share", "davidson", "rao_kupper"])
def test_a_batch_may_hold_ratings_alone(ties: str) -> None:
    batch = collate_labels([EncodedLabel([[1], [2]], Terms([], [Rating([0], 0.5, 2.0)]))], pad_id=0)
    heads = torch.tensor([[1.5], [0.0]], requires_grad=True)
    model = make_tie_model(RewardModelSettings.parse({"ties": ties}, "f"), CHOICES)
    loss = label_loss(heads, batch, model or choice_losses)
    loss.backward()
    assert loss.item() == 1.0
    # On several ranks every parameter needs a gradient in every step.
    assert all(weight.grad is not None and not weight.grad.any() for weight in (model.parameters() if model else ()))
