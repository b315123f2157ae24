"""The rule by which every claim is judged, and how estimates of several seeds become one."""

import math
from dataclasses import asdict

import pytest

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.evaluation.report import jsonable
from rlhf_dagster.replication.base import Criterion
from rlhf_dagster.replication.verdicts import (
    across_seeds,
    criterion_of,
    judge,
    must_be_preferred,
    must_exceed,
    must_stay_below,
    outcome_of_criterion,
    rate_of,
)


def criterion(low: float, high: float, bound: float = 0.5, side: str = "above") -> Criterion:
    return Criterion("It holds", (low + high) / 2, low, high, bound, side, 100)


HOLDS, FAILS, OPEN = criterion(0.6, 0.8), criterion(0.2, 0.4), criterion(0.4, 0.6)


@pytest.mark.parametrize(
    ("low", "high", "side", "outcome"),
    [
        (0.51, 0.9, "above", "holds"),
        (0.1, 0.49, "above", "fails"),
        (0.49, 0.51, "above", "open"),
        (0.5, 0.9, "above", "open"),
        (0.1, 0.49, "below", "holds"),
        (0.51, 0.9, "below", "fails"),
        (-math.inf, math.inf, "above", "open"),
        (-math.inf, 0.4, "below", "open"),
        (0.6, math.nan, "above", "open"),
        (math.nan, 0.4, "above", "open"),
    ],
)
def test_the_whole_interval_decides(low: float, high: float, side: str, outcome: str) -> None:
    assert outcome_of_criterion(Criterion("It holds", math.nan, low, high, 0.5, side, 3)) == outcome


@pytest.mark.parametrize(
    ("low", "high", "side", "outcome"),
    [
        (0.40, 0.59, "above", "fails"),  # a preference, if there is one, is no clear one
        (0.40, 0.61, "above", "open"),
        (0.51, 0.55, "above", "holds"),  # small, and surely there
        (0.51, 0.70, "above", "holds"),
        (0.10, 0.40, "above", "fails"),
        (0.41, 0.60, "below", "fails"),
        (0.39, 0.60, "below", "open"),
        (0.30, 0.49, "below", "holds"),
    ],
)
def test_an_interval_that_falls_short_of_a_clear_effect_decides_too(
    low: float, high: float, side: str, outcome: str
) -> None:
    clear = 0.6 if side == "above" else 0.4
    assert outcome_of_criterion(Criterion("It holds", math.nan, low, high, 0.5, side, 3, clear=clear)) == outcome


def test_a_preference_is_clear_from_60_percent() -> None:
    assert outcome_of_criterion(must_be_preferred("It wins", Rate(0.5, 0.45, 0.599, 20))) == "fails"
    assert outcome_of_criterion(must_be_preferred("It wins", Rate(0.5, 0.45, 0.601, 20))) == "open"
    assert outcome_of_criterion(must_be_preferred("It wins", Rate(0.52, 0.501, 0.54, 20))) == "holds"


def test_every_criterion_must_hold_and_one_that_fails_is_enough() -> None:
    assert judge([HOLDS, HOLDS]) == "reproduced"
    assert judge([HOLDS, OPEN]) == "not decided"
    assert judge([OPEN, FAILS, HOLDS]) == "not reproduced"
    with pytest.raises(ValueError, match="without a criterion"):
        judge([])


def test_a_criterion_is_made_of_an_estimate() -> None:
    rate = Rate(0.7, 0.6, 0.8, 50)
    assert outcome_of_criterion(must_exceed("It wins", rate, 0.5, percent=True)) == "holds"
    assert outcome_of_criterion(must_stay_below("It loses", rate, 0.5)) == "fails"
    assert (must_exceed("It wins", rate, 0.5).n, must_exceed("It wins", rate, 0.5, percent=True).percent) == (50, True)


def test_one_seed_has_its_own_interval_and_several_have_students() -> None:
    seeds = [{"wins": [Rate(value, value - 0.01, value + 0.01, 512).as_dict()]} for value in (0.6, 0.7, 0.95)]
    assert across_seeds(seeds[:1], "wins", 0) == Rate(0.6, 0.59, 0.61, 512)
    assert across_seeds(seeds, "wins", 0) == mean_interval([0.6, 0.7, 0.95])
    # Each seed by itself is sure; that they differ so much is what decides.
    assert outcome_of_criterion(must_exceed("It wins", across_seeds(seeds, "wins", 0), 0.5)) == "open"


def test_what_a_seed_did_not_measure_decides_nothing() -> None:
    seeds = [{"wins": Rate(0.9, 0.8, 1.0, 5).as_dict()}, {"wins": None}, {"wins": Rate(0.9, 0.8, 1.0, 5).as_dict()}]
    assert judge([must_exceed("It wins", across_seeds(seeds, "wins"), 0.5)]) == "not decided"
    assert judge([must_exceed("It wins", across_seeds(seeds[1:2], "wins"), 0.5)]) == "not decided"
    with pytest.raises(KeyError):
        across_seeds(seeds, "losses")


@pytest.mark.parametrize("kept", [HOLDS, OPEN, Criterion("It holds", 0.7, -math.inf, math.inf, 0.5, "above", 1)])
def test_a_criterion_that_was_kept_comes_to_the_same(kept: Criterion) -> None:
    assert outcome_of_criterion(criterion_of(jsonable(asdict(kept)))) == outcome_of_criterion(kept)


@pytest.mark.parametrize("rate", [Rate(0.5, 0.4, 0.6, 7), Rate(0.5, -math.inf, math.inf, 1)])
def test_an_estimate_comes_back_from_json(rate: Rate) -> None:
    assert rate_of(rate.as_dict()) == rate
