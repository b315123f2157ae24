"""The over-optimisation alarm's figure, on outcomes that can be counted by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.gate import gate
from rlhf_dagster.evaluation.reward_drift import drift_scores, reward_drift
from rlhf_dagster.evaluation.rules import drift_rule

Scores = dict[str, list[float]]


def wins(*outcomes: float) -> Scores:
    """Scores of the policy with these outcomes (1, 0.5 or 0) against SFT, whose scores are all 0."""
    return {"policy": [2 * outcome - 1 for outcome in outcomes], "sft": [0.0] * len(outcomes)}


def test_a_drift_by_hand() -> None:
    """Wins on 4, 2 and 3 of 4 prompts: the largest difference, 1/2, is the reward model's to half A."""
    found = reward_drift(drift_scores(wins(1, 1, 1, 1), [wins(1, 1, 0, 0), wins(1, 1, 1, 0)]))
    assert [(rate.judge, rate.value) for rate in found.win_rates] == [
        ("reward model", 1.0),
        ("half A", 0.5),
        ("half B", 0.75),
    ]
    assert (found.drift.value, found.drift.n, found.between) == (0.5, 4, ("reward model", "half A"))
    # Differences 0, 0, 1, 1: standard error sqrt(1/3) / 2; t of 3 degrees at 1 - 0.05 / 6 is 4.8567.
    assert found.drift.high - 0.5 == pytest.approx(4.8567 * math.sqrt(1 / 3) / 2, rel=1e-4)
    assert 0.5 - found.drift.low == pytest.approx(4.8567 * math.sqrt(1 / 3) / 2, rel=1e-4)


def test_halves_that_differ_from_each_other_drift_too() -> None:
    found = reward_drift(drift_scores(wins(1, 1, 0, 0), [wins(0, 1, 0, 0), wins(1, 1, 1, 0)]))
    assert (found.between, found.drift.value) == (("half A", "half B"), 0.5)
    assert found.drift.low <= found.drift.value <= found.drift.high


def test_ties_count_half() -> None:
    found = reward_drift(drift_scores(wins(1, 1), [wins(0.5, 0.5), wins(1, 1)]))
    assert (found.drift.value, found.drift.low, found.drift.high) == (0.5, 0.5, 0.5)


def test_the_same_opinion_is_no_drift_whatever_its_scale() -> None:
    scores = wins(1, 0, 1, 0.5)
    larger = {role: [3 * score for score in given] for role, given in scores.items()}
    assert reward_drift(drift_scores(scores, [larger, scores])).drift.value == 0.0


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 3), min_size=2, max_size=30))
def test_a_drift_is_positive_and_the_largest_there_is(outcomes: list[tuple[float, float, float]]) -> None:
    full, a, b = (wins(*column) for column in zip(*outcomes, strict=True))
    found = reward_drift(drift_scores(full, [a, b]))
    rates = [rate.value for rate in found.win_rates]
    assert found.drift.value == pytest.approx(max(rates) - min(rates))
    assert found.drift.low <= found.drift.value <= found.drift.high


@pytest.mark.parametrize(("shared", "alarm"), [(0.95, False), (0.45, True)])
def test_the_alarm_fires_where_only_one_model_is_delighted(shared: float, alarm: bool) -> None:
    """The reward model is won over on 95% of 400 prompts; the halves agree, or see no gain at all."""
    draw = np.random.default_rng(0).random((3, 400))
    full, a, b = (wins(*(row < share).astype(float)) for row, share in zip(draw, (0.95, shared, shared), strict=True))
    figures = {"reward_drift": reward_drift(drift_scores(full, [a, b])).as_dict()}
    verdict = drift_rule(figures, GateSettings())
    assert verdict is not None
    assert (verdict.outcome == "fail") == alarm
    assert verdict.sentence.startswith("Over-optimisation: " if alarm else "Reward models trained on halves")
    assert gate(figures, None, GateSettings(), human_required=False).outcome == "fail"


def test_a_difference_over_the_limit_by_chance_is_no_alarm() -> None:
    """6 and 4 wins of 10: a difference of 20% that ten prompts cannot tell from none."""
    found = reward_drift(drift_scores(wins(*[1] * 6, *[0] * 4), [wins(*[0] * 6, *[1] * 4), wins(*[1] * 5, *[0] * 5)]))
    assert found.drift.value == pytest.approx(0.2)
    verdict = drift_rule({"reward_drift": found.as_dict()}, GateSettings())
    assert verdict is not None
    assert verdict.outcome == "pass"
