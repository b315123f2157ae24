"""The length-controlled win rate: what it removes, what it leaves, and where it cannot be told."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import chi2

from rlhf_dagster.evaluation.length_control import length_controlled


def judged(theta: float, phi: float, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes of the model that is fitted, with responses that are longer by 20 characters on average."""
    random = np.random.default_rng(seed)
    longer = random.normal(20.0, 30.0, n).round()
    chance = 1 / (1 + np.exp(-(theta + phi * np.tanh(longer / longer.std()))))
    return (random.random(n) < chance).astype(float), longer


@pytest.mark.parametrize(("theta", "phi"), [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0), (-1.0, 3.0)])
def test_the_interval_holds_the_true_rate(theta: float, phi: float) -> None:
    truth = 1 / (1 + math.exp(-theta))
    found = [length_controlled(*judged(theta, phi, seed=seed), range(400)) for seed in range(12)]
    # Of 12 intervals with a coverage of 95%, 9 or more hold it but for one time in 5,000.
    assert sum(rate.low <= truth <= rate.high for rate in found) >= 9
    assert np.mean([rate.value for rate in found]) == pytest.approx(truth, abs=0.03)


def test_a_policy_that_wins_by_length_alone_loses_its_lead() -> None:
    outcomes, longer = judged(0.0, 2.0)
    assert outcomes.mean() > 0.6
    rate = length_controlled(outcomes, longer, range(400))
    assert rate.low < 0.5 < rate.high


def test_it_is_the_maximum_of_the_penalised_likelihood() -> None:
    outcomes, longer = judged(0.4, 1.0, n=60)
    x = np.stack([np.ones(60), np.tanh(longer / longer.std())], axis=1)

    def likelihood(theta: float, phi: float) -> float:
        chance = 1 / (1 + np.exp(-(x @ [theta, phi])))
        information = x.T @ (x * (chance * (1 - chance))[:, None])
        fitted = outcomes * np.log(chance) + (1 - outcomes) * np.log(1 - chance)
        return float(fitted.sum() + np.log(np.linalg.det(information)) / 2)

    best = minimize(lambda given: -likelihood(*given), [0.0, 0.0])
    rate = length_controlled(outcomes, longer, range(60))
    assert rate.value == pytest.approx(1 / (1 + math.exp(-best.x[0])), abs=1e-4)
    for end in (rate.low, rate.high):
        theta = math.log(end / (1 - end))
        profile = minimize(lambda given, at=theta: -likelihood(at, given[0]), [0.0])
        assert 2 * (profile.fun - best.fun) == pytest.approx(chi2.ppf(0.95, 1), abs=1e-3)


def test_at_equal_length_it_is_the_win_rate_shrunk_by_half_a_judgment() -> None:
    rate = length_controlled([1.0] * 30 + [0.0] * 10, [0] * 40, range(40))
    assert rate.value == pytest.approx(30.5 / 41, abs=1e-4)
    always = length_controlled([1.0] * 20, [0] * 20, range(20))
    assert always.value == pytest.approx(20.5 / 21, abs=1e-4)
    assert 0.8 < always.low < always.value < always.high <= 1


def test_a_tie_is_half_a_win_and_half_a_loss() -> None:
    ties = length_controlled([0.5] * 30, [0] * 30, range(30))
    halves = length_controlled([1.0, 0.0] * 15, [0] * 30, range(30))
    assert (ties.value, ties.low, ties.high) == pytest.approx((halves.value, halves.low, halves.high), abs=1e-5)


def test_judgments_of_one_pair_are_no_new_pairs() -> None:
    outcomes, longer = judged(0.5, 0.0, n=40)
    once = length_controlled(outcomes, longer, range(40))
    thrice = length_controlled(np.repeat(outcomes, 3), np.repeat(longer, 3), np.repeat(range(40), 3).tolist())
    assert (thrice.value, thrice.low, thrice.n) == pytest.approx((once.value, once.low, once.n), abs=1e-5)


@pytest.mark.parametrize("given", [([], [], []), ([1.0], [3], ["a"]), ([1.0, 0.0] * 9, [3, 2] * 9, range(18))])
def test_where_equal_length_is_never_seen_it_is_not_known(given: tuple[list, list, Sequence]) -> None:
    rate = length_controlled(*given)
    assert (math.isnan(rate.value), rate.low, rate.high) == (True, 0.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-50, 50)), min_size=2, max_size=20))
def test_both_sides_add_up(judgments: list[tuple[float, int]]) -> None:
    outcomes, longer = (np.array(column, dtype=float) for column in zip(*judgments, strict=True))
    one = length_controlled(outcomes, longer, range(len(outcomes)))
    other = length_controlled(1 - outcomes, -longer, range(len(outcomes)))
    if not math.isnan(one.value):
        assert one.value + other.value == pytest.approx(1, abs=1e-3)
        assert one.low == pytest.approx(1 - other.high, abs=1e-3)
        assert 0 <= one.low <= one.value <= one.high <= 1
