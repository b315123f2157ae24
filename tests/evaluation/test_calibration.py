"""Calibration, by hand and on predictions whose probabilities are known."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.evaluation.calibration import calibration_curve, expected_calibration_error

CONFIDENCE, CORRECT = [0.6, 0.55, 0.95], [1, 0, 1]


def test_expected_calibration_error_by_hand() -> None:
    # Bin (0.5, 0.6]: confidence 0.6 and 0.55, half right, gap |1.0 - 1.15|; bin (0.9, 1]: 0.95, right, gap 0.05.
    assert expected_calibration_error(CONFIDENCE, CORRECT) == pytest.approx((0.15 + 0.05) / 3)


def test_the_curve_by_hand() -> None:
    unsure, sure = calibration_curve(CONFIDENCE, CORRECT, ["a", "b", "c"])
    assert (unsure.low, unsure.high, unsure.confidence, unsure.labels) == pytest.approx((0.5, 0.6, 0.575, 2))
    assert (sure.low, sure.high, sure.confidence, sure.labels) == pytest.approx((0.9, 1.0, 0.95, 1))
    expected = wilson(1, 2)
    assert (unsure.accuracy.value, unsure.accuracy.low, unsure.accuracy.high) == pytest.approx(
        (0.5, expected.low, expected.high)
    )
    assert json.loads(json.dumps(unsure.as_dict()))["accuracy"]["n"] == 2


def test_several_labels_of_one_comparison_are_one_observation() -> None:
    (only,) = calibration_curve([0.7] * 6, [1, 1, 1, 0, 0, 0], list("aaabbb"))
    assert (only.labels, only.accuracy.n) == (6, 2)
    assert only.accuracy.low == pytest.approx(wilson(1, 2).low)


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=40))
def test_the_error_is_the_mean_gap_of_the_curve(predictions: list[tuple[float, bool]]) -> None:
    confidence, correct = [sure for sure, _ in predictions], [float(right) for _, right in predictions]
    curve = calibration_curve(confidence, correct, range(len(predictions)))
    assert sum(one.labels for one in curve) == len(predictions)
    assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in curve)
    gap = sum(one.labels * abs(one.accuracy.value - one.confidence) for one in curve) / len(predictions)
    assert expected_calibration_error(confidence, correct) == pytest.approx(gap, abs=1e-9)


def test_true_probabilities_lie_within_most_intervals_and_boastful_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1, 5000)
    right = rng.random(5000) < sure
    inside = [
        one.accuracy.low <= one.confidence <= one.accuracy.high for one in calibration_curve(sure, right, range(5000))
    ]
    assert sum(inside) >= len(inside) - 1
    boastful = calibration_curve(0.5 + sure / 2, right, range(5000))
    assert not any(one.accuracy.low <= one.confidence <= one.accuracy.high for one in boastful)
    assert expected_calibration_error(0.5 + sure / 2, right) == pytest.approx(0.125, abs=0.02)
