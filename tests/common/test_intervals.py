"""Intervals against scipy, against numbers worked by hand, and by their properties."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rlhf_dagster.common.intervals import Rate, clustered_rate, mean_count, mean_interval, mean_of_shares, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (7, 10), (50, 100), (512, 512), (3, 2000)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = binomtest(successes, n).proportion_ci(0.9, method="wilson")
    rate = wilson(successes, n, confidence=0.9)
    assert (rate.value, rate.n) == (successes / n, n)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high))


def test_wilson_by_hand() -> None:
    # Centre (0.9 + 3.8416/20) / 1.38416 = 0.78900, half width 1.96/1.38416 * sqrt(0.009 + 0.009604) = 0.19314.
    rate = wilson(9, 10)
    assert (rate.low, rate.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n))))
def test_wilson_contains_its_value_and_is_symmetric(case: tuple[float, int]) -> None:
    successes, n = case
    rate, mirrored = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.low < rate.high
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((rate.low, rate.high), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 10), (11, 10), (math.nan, 10)])
def test_wilson_refuses_what_is_no_proportion(successes: float, n: int) -> None:
    with pytest.raises(ValueError, match="observation"):
        wilson(successes, n)


def test_mean_interval_by_hand() -> None:
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.3027: half width 4.3027 / sqrt(3).
    rate = mean_interval([1.0, 2.0, 3.0])
    assert (rate.value, rate.low, rate.high) == pytest.approx((2.0, 2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert rate.n == 3


def test_mean_of_one_value_has_no_interval() -> None:
    assert mean_interval([4.0]) == Rate(4.0, -math.inf, math.inf, 1)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_as_dict_is_json_without_nan() -> None:
    assert mean_interval([4.0]).as_dict() == {"value": 4.0, "low": None, "high": None, "n": 1}
    json.dumps(mean_interval([1.0, math.nan]).as_dict(), allow_nan=False)


def test_separate_clusters_are_wilson() -> None:
    rate = clustered_rate([1, 1, 0, 1, 0.5], list("abcde"))
    assert (rate.value, rate.low, rate.high, rate.n) == pytest.approx(
        tuple(getattr(wilson(3.5, 5), name) for name in ("value", "low", "high", "n"))
    )


def test_repeating_every_observation_adds_no_certainty() -> None:
    values, clusters = [1, 0, 1, 1, 0, 1], list("abcdef")
    once, thrice = clustered_rate(values, clusters), clustered_rate(values * 3, clusters * 3)
    assert (thrice.low, thrice.high, thrice.n) == pytest.approx((once.low, once.high, once.n))


def test_unequal_clusters_use_the_effective_size() -> None:
    # Cluster sizes 4, 1, 1: (6)^2 / (16 + 1 + 1) = 2 effective observations of which half succeed.
    rate = clustered_rate([1, 1, 0, 0, 1, 0], list("aaaabc"))
    expected = wilson(1, 2)
    assert (rate.low, rate.high, rate.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 3)


def test_clustered_interval_covers_the_truth_where_labels_repeat() -> None:
    # 60 comparisons with 1 to 9 labels that always agree; independent labels would give far too narrow an interval.
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        sizes = rng.integers(1, 10, 60)
        rate = clustered_rate(np.repeat(rng.random(60) < 0.7, sizes), np.repeat(np.arange(60), sizes).tolist())
        covered += rate.low <= 0.7 <= rate.high
    assert covered / 300 > 0.92


def test_clustered_rate_refuses_nothing_and_mismatch() -> None:
    with pytest.raises(ValueError, match="at least one observation"):
        clustered_rate([], [])
    with pytest.raises(ValueError, match="do not match"):
        clustered_rate([1, 0], ["a"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_a_mean_of_shares_is_between_nothing_and_everything_and_never_sure(shares: list[float]) -> None:
    found, plain = mean_of_shares(shares), mean_interval(shares)
    assert (found.value, found.n) == (plain.value, len(shares))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    if len(shares) > 1 and 0 < plain.low < plain.high < 1:
        assert found == plain


def test_equal_shares_have_wilsons_interval() -> None:
    assert mean_of_shares([0.0] * 24) == wilson(0, 24)
    assert mean_of_shares([0.25] * 8) == wilson(2, 8)
    assert mean_of_shares([1.0]) == wilson(1, 1)


def test_a_mean_count_begins_at_nothing() -> None:
    assert mean_count([0, 0, 0, 4]) == Rate(1.0, 0.0, mean_interval([0, 0, 0, 4]).high, 4)
    assert mean_count([3, 4, 5]) == mean_interval([3, 4, 5])


def test_nothing_counted_is_not_nothing_ever() -> None:
    """Of a Poisson variable with the interval's upper end as its mean, 24 are all 0 in 2.5% of the cases."""
    found = mean_count([0] * 24)
    assert (found.value, found.low, found.n) == (0.0, 0.0, 24)
    assert math.exp(-24 * found.high) == pytest.approx(0.025)
