"""Losses of labels, by hand, by their relations to each other, and by finite differences."""

import math
from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from rlhf_dagster.training.reward.losses import (
    choice_losses,
    davidson_luce_losses,
    preference_loss,
    rao_kupper_losses,
    rating_losses,
    weighted_mean,
    with_margin,
)

scores = st.floats(-20, 20)
ONE = torch.ones(1)


def loss_of(values: list[float], target: list[float]) -> float:
    row = torch.tensor([values], dtype=torch.float64)
    return preference_loss(row, torch.tensor([target], dtype=torch.float64), torch.ones_like(row), ONE).item()


@given(scores, scores)
def test_two_responses_are_bradley_terry(better: float, worse: float) -> None:
    expected = math.log1p(math.exp(-(better - worse)))
    assert math.isclose(loss_of([better, worse], [1.0, 0.0]), expected, abs_tol=1e-9)


def test_best_of_four_is_minus_log_softmax_of_the_best() -> None:
    # softmax([1, 2, 3, 0])_3 = e^3 / (e^0 + e^1 + e^2 + e^3) = 20.0855 / 31.1929
    assert math.isclose(loss_of([1.0, 2.0, 3.0, 0.0], [0, 0, 1, 0]), -math.log(20.085537 / 31.192877), abs_tol=1e-6)


def test_a_tie_is_the_mean_of_both_outcomes() -> None:
    both = (loss_of([1.0, -2.0], [1.0, 0.0]) + loss_of([1.0, -2.0], [0.0, 1.0])) / 2
    assert math.isclose(loss_of([1.0, -2.0], [0.5, 0.5]), both, abs_tol=1e-9)


def test_labels_with_fewer_responses_are_padded_without_effect() -> None:
    target = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    ragged = torch.tensor([[0.3, -0.2, 99.0], [0.1, 0.2, 0.4]], requires_grad=True)
    loss = preference_loss(ragged, target, mask, torch.ones(2))
    expected = (loss_of([0.3, -0.2], [1.0, 0.0]) + loss_of([0.1, 0.2, 0.4], [0.0, 0.0, 1.0])) / 2
    assert math.isclose(loss.item(), expected, abs_tol=1e-6)
    loss.backward()
    assert ragged.grad is not None
    assert ragged.grad[0, 2] == 0
    assert torch.isfinite(ragged.grad).all()


def test_weights_make_a_weighted_mean() -> None:
    rows = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = preference_loss(rows, target, torch.ones(2, 2), torch.tensor([3.0, 1.0]))
    # (3 log(1 + e^-2) + log(1 + e)) / 4 = (3 x 0.126928 + 1.313262) / 4
    assert math.isclose(loss.item(), 0.4235115, abs_tol=1e-6)


def double(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def davidson(values: list[float], chosen: list[int], log_prevalence: list[float]) -> float:
    row = double([values])
    target = double([[float(index in chosen) for index in range(len(values))]])
    return davidson_luce_losses(row, target, torch.ones_like(row), double(log_prevalence)).item()


def rao_kupper(values: list[float], target: list[float], threshold: float) -> float:
    return rao_kupper_losses(double([values]), double([target]), torch.tensor(threshold, dtype=torch.float64)).item()


def test_a_margin_must_be_won_by_as_well() -> None:
    # -log sigmoid(1.5 - 0.5 - 0.4) = log(1 + e^-0.6)
    target = double([[1.0, 0.0]])
    moved = with_margin(double([[1.5, 0.5]]), target, double([0.4]))
    assert choice_losses(moved, target, torch.ones(1, 2)).item() == pytest.approx(math.log1p(math.exp(-0.6)))


@given(st.lists(scores, min_size=2, max_size=5), st.data())
def test_no_margin_changes_nothing(values: list[float], data: st.DataObject) -> None:
    row, best = double([values]), data.draw(st.integers(0, len(values) - 1))
    target = double([[float(index == best) for index in range(len(values))]])
    assert torch.equal(with_margin(row, target, torch.zeros(1)), row)


def test_davidson_by_hand() -> None:
    # Scores log 4 and log 1, prevalence 0.5: 4 + 1 + 0.5 x sqrt(4 x 1) = 6.
    values, prevalence = [math.log(4), 0.0], [math.log(0.5)]
    assert davidson(values, [0], prevalence) == pytest.approx(math.log(6 / 4))
    assert davidson(values, [1], prevalence) == pytest.approx(math.log(6 / 1))
    assert davidson(values, [0, 1], prevalence) == pytest.approx(math.log(6 / 1))


def test_davidson_luce_of_three_by_hand() -> None:
    # Scores log 8, log 1, log 8: single ones 8 + 1 + 8; pairs d_2 (sqrt 8 + 8 + sqrt 8); all three d_3 x 64^(1/3).
    total = 17 + 0.5 * (2 * math.sqrt(8) + 8) + 0.25 * 4
    values, prevalence = [math.log(8), 0.0, math.log(8)], [math.log(0.5), math.log(0.25)]
    assert davidson(values, [0, 2], prevalence) == pytest.approx(math.log(total / 4))
    assert davidson(values, [0, 1, 2], prevalence) == pytest.approx(math.log(total / 1))
    assert davidson(values, [1], prevalence) == pytest.approx(math.log(total / 1))


def test_rao_kupper_by_hand() -> None:
    # Strengths 6 and 2, factor 3: 6 / (6 + 3 x 2), 2 / (2 + 3 x 6), and the rest 1 - 1/2 - 1/10.
    values, threshold = [math.log(6), math.log(2)], math.log(3)
    assert rao_kupper(values, [1.0, 0.0], threshold) == pytest.approx(math.log(2))
    assert rao_kupper(values, [0.0, 1.0], threshold) == pytest.approx(math.log(10))
    assert rao_kupper(values, [0.5, 0.5], threshold) == pytest.approx(-math.log(0.4))


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=5), st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_the_outcomes_of_davidson_luce_are_all_that_can_happen(values: list[float], prevalence: list[float]) -> None:
    sets = [chosen for size in range(1, len(values) + 1) for chosen in combinations(range(len(values)), size)]
    assert sum(math.exp(-davidson(values, list(chosen), prevalence)) for chosen in sets) == pytest.approx(1)


def test_losses_of_ties_are_float32_where_products_are_bfloat16() -> None:
    # All 10 of 10: the place of this set among the 1023, and 10 scores' sum, have more digits than bfloat16.
    values = torch.linspace(-3.1, 2.7, 10)[None]
    target, mask, prevalence = torch.full((1, 10), 0.1), torch.ones(1, 10), torch.linspace(-1, 1, 9)
    exact = davidson_luce_losses(values, target, mask, prevalence)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(davidson_luce_losses(values, target, mask, prevalence), exact)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=2), st.floats(0.01, 4))
def test_the_outcomes_of_rao_kupper_are_all_that_can_happen(values: list[float], threshold: float) -> None:
    outcomes = ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5])
    assert sum(math.exp(-rao_kupper(values, target, threshold)) for target in outcomes) == pytest.approx(1)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=5))
def test_where_ties_are_rare_both_are_bradley_terry(values: list[float]) -> None:
    target = [1.0] + [0.0] * (len(values) - 1)
    assert davidson(values, [0], [-40.0] * 4) == pytest.approx(loss_of(values, target), abs=1e-9)
    assert rao_kupper(values[:2], target[:2], 1e-9) == pytest.approx(loss_of(values[:2], target[:2]), abs=1e-6)


def test_padding_is_in_no_set() -> None:
    ragged, target = torch.tensor([[0.3, -0.2, 99.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    ragged.requires_grad_()
    loss = davidson_luce_losses(ragged, target, torch.tensor([[1, 1, 0]]), torch.tensor([-1.0, -2.0]))
    assert loss.item() == pytest.approx(davidson([0.3, -0.2], [0, 1], [-1.0]), abs=1e-6)
    loss.backward()
    assert ragged.grad is not None
    assert ragged.grad[0, 2] == 0
    assert torch.isfinite(ragged.grad).all()


def test_rating_losses_by_hand() -> None:
    assert rating_losses(torch.tensor([1.0, -0.5]), torch.tensor([0.0, 1.0])).tolist() == [1.0, 2.25]


def test_a_mean_without_weight_is_0() -> None:
    assert weighted_mean(torch.tensor([3.0]), torch.tensor([0.0])).item() == 0


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_the_orders_of_three_are_all_that_can_happen(values: list[float]) -> None:
    """The Plackett-Luce model, as nested choices."""

    def order_loss(order: tuple[int, ...]) -> float:
        first = loss_of(values, [float(index == order[0]) for index in range(3)])
        return first + loss_of([values[order[1]], values[order[2]]], [1.0, 0.0])

    assert sum(math.exp(-order_loss(order)) for order in permutations(range(3))) == pytest.approx(1)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=2, max_size=3), st.floats(0.05, 2))
def test_gradients_are_those_of_finite_differences(values: list[list[float]], positive: float) -> None:
    rows = double(values).requires_grad_()
    target = double([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])[: len(values)]
    mask, weight = torch.ones_like(rows), double([1.0, 0.5, 2.0])[: len(values)]
    prevalence = double([positive, -positive]).requires_grad_()
    threshold = double([positive])[0].requires_grad_()
    pairs = double([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])[: len(values)]
    check = torch.autograd.gradcheck
    assert check(lambda given: preference_loss(with_margin(given, target, weight), target, mask, weight), (rows,))
    assert check(lambda given, ties: davidson_luce_losses(given, target, mask, ties), (rows, prevalence))
    assert check(lambda given, ties: rao_kupper_losses(given[:, :2], pairs, ties), (rows, threshold))
    assert check(lambda given: rating_losses(given[:, 0], weight), (rows,))
