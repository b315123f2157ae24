"""Intervals of differences and trends, against numbers worked out elsewhere, and the law of over-optimisation."""

import math

import numpy as np
import pytest

from rlhf_dagster.common.intervals import Rate, mean_interval, wilson
from rlhf_dagster.replication.estimates.differences import (
    difference_of_rates,
    paired_difference,
    paired_difference_of_shares,
)
from rlhf_dagster.replication.estimates.overoptimisation import fit_law, fit_over_prompts
from rlhf_dagster.replication.estimates.trends import (
    fall_after_peak,
    paired_slope,
    paired_steps,
    rise_to_peak,
    slope_of_rates,
)


def test_the_difference_of_two_proportions_has_newcombes_interval() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:873), table II, method 10: 56/70 and 48/80, and 9/10 and 3/10.
    first = difference_of_rates(wilson(56, 70), wilson(48, 80))
    assert (round(first.value, 4), round(first.low, 4), round(first.high, 4)) == (0.2, 0.0524, 0.3339)
    second = difference_of_rates(wilson(9, 10), wilson(3, 10))
    assert (round(second.low, 4), round(second.high, 4), second.n) == (0.1705, 0.8090, 10)


def test_pairs_are_judged_by_their_differences() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.normal(0, 10, 200)
    rate = paired_difference(prompts + 1 + rng.normal(0, 0.1, 200), prompts)
    assert rate.low > 0.9
    assert rate.high < 1.1
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([], [])


def test_prompts_that_do_not_differ_do_not_prove_that_none_would() -> None:
    few, many = (paired_difference_of_shares(np.ones(n), np.ones(n)) for n in (5, 5000))
    assert few.value == many.value == 0
    assert few.low < -0.4 < 0.4 < few.high
    assert many.high < 0.01
    # Always ahead: no more than 1 can be gained.
    assert paired_difference_of_shares(np.ones(40), np.zeros(40)).high == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        paired_difference_of_shares([3.0], [1.0])


def test_the_slope_over_shared_prompts_is_the_mean_of_their_slopes() -> None:
    rng = np.random.default_rng(1)
    level, places = rng.normal(0, 5, 100), np.array([1.0, 2.0, 4.0])
    values = np.stack([level + 0.5 * place for place in places]) + rng.normal(0, 0.1, (3, 100))
    rate = paired_slope(places, values)
    assert rate.value == pytest.approx(np.polyfit(places, values.mean(axis=1), 1)[0])
    assert 0.45 < rate.low < 0.5 < rate.high < 0.55
    with pytest.raises(ValueError, match="no slope"):
        paired_slope([2.0, 2.0, 2.0], values)


def test_the_slope_through_independent_estimates() -> None:
    rates = [Rate(value, value - 0.1, value + 0.1, n) for value, n in ((0.7, 30), (0.6, 20), (0.5, 40))]
    slope = slope_of_rates([1, 2, 3], rates)
    # Var = (1/2)^2 s^2 + (1/2)^2 s^2, so the interval is 1 / sqrt(2) as wide as one estimate's.
    assert (slope.value, slope.n) == (pytest.approx(-0.1), 20)
    assert (slope.high - slope.low) / 2 == pytest.approx(0.1 / math.sqrt(2))


def test_every_step_is_an_estimate_of_its_own() -> None:
    values = np.array([[0.0, 0.0, 0.1], [1.0, 1.1, 1.0], [0.5, 0.4, 0.6]])
    up, down = paired_steps(values)
    assert up == mean_interval(values[1] - values[0])
    assert down == mean_interval(values[2] - values[1])


def test_the_height_of_a_peak_is_measured_where_it_was_not_chosen() -> None:
    rng = np.random.default_rng(2)
    naive, covered = [], []
    for _ in range(200):
        flat = rng.normal(0, 1, (12, 100))
        naive.append(flat.mean(axis=1).max() - flat[-1].mean())
        fall = fall_after_peak(flat)
        covered.append(fall.low <= 0 <= fall.high)
    assert np.mean(naive) > 0.1
    assert np.mean(covered) > 0.9


def test_rise_and_fall_around_a_peak() -> None:
    heights = np.array([0, 1, 3, 2])[:, None]
    values = heights + np.random.default_rng(3).normal(0, 0.1, (4, 100))
    assert rise_to_peak(values).low < 3 < rise_to_peak(values).high
    assert fall_after_peak(values).low < 1 < fall_after_peak(values).high
    assert fall_after_peak(np.sort(values, axis=0)) == Rate(0, 0, 0, 50)
    with pytest.raises(ValueError, match="two are needed"):
        fall_after_peak(np.zeros((3, 1)))


@pytest.mark.parametrize("law", ["rl", "best_of_n"])
def test_a_law_is_found_again(law: str) -> None:
    d = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 6.0])
    gains = d * (1.2 - 0.3 * (d if law == "best_of_n" else np.log(np.maximum(d, 1e-300))))
    fit = fit_law(d, gains, law)
    assert (fit.a, fit.b, fit.r_squared) == (pytest.approx(1.2), pytest.approx(0.3), pytest.approx(1))
    assert fit.gain(d) == pytest.approx(gains)


def test_a_law_that_does_not_hold_explains_little() -> None:
    assert fit_law([1, 2, 3, 4, 5], [1, -1, 1, -1, 1]).r_squared < 0.3
    with pytest.raises(ValueError, match="three points"):
        fit_law([1, 2], [1, 2])


def test_the_law_over_prompts_has_intervals_that_hold_the_truth_and_are_always_the_same() -> None:
    rng = np.random.default_rng(3)
    d = np.array([1.0, 2.0, 3.0, 5.0])
    kl, level = d[:, None] ** 2 + rng.normal(0, 0.5, (4, 300)), rng.normal(0, 1, 300)
    gold = level + (d * (1.0 - 0.4 * np.log(d)))[:, None] + rng.normal(0, 0.5, (4, 300))
    found = fit_over_prompts(kl, gold, level)
    assert found == fit_over_prompts(kl, gold, level)
    for name, truth in (("a", 1.0), ("b", 0.4)):
        assert found[name]["low"] < truth < found[name]["high"]
        assert found[name]["high"] - found[name]["low"] < 0.2
    assert 0.5 < found["r_squared"]["low"] <= found["r_squared"]["value"]
    with pytest.raises(ValueError, match="do not match"):
        fit_over_prompts(kl, gold, level[:7])
