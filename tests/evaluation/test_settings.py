"""How many judgments a precision takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.config.evaluation import EvaluationSettings, judgments_for
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError


@pytest.mark.parametrize(("half_width", "n"), [(0.05, 385), (0.1, 97), (0.03, 1068), (0.2, 25)])
def test_the_textbook_sample_sizes(half_width: float, n: int) -> None:
    """1.96^2 / 4 / h^2: 384.1, 96.04, 1067.1 and 24.01, rounded up."""
    assert judgments_for(half_width) == n


@given(st.floats(0.01, 0.3), st.floats(0, 1))
def test_the_interval_is_as_narrow_as_asked_whatever_the_rate(half_width: float, rate: float) -> None:
    n = judgments_for(half_width)
    found = wilson(round(rate * n), n)
    assert (found.high - found.low) / 2 <= half_width


@pytest.mark.parametrize(
    ("given", "opponents", "n", "asks"),
    [(None, 1, 385, True), (None, 2, 770, True), (0, 2, 0, False), (600, 1, 600, True), (600, 2, 600, True)],
)
def test_what_is_asked_for(given: int | None, opponents: int, n: int, asks: bool) -> None:
    settings = EvaluationSettings(human_judgments=given)
    assert (settings.judgments(opponents), settings.asks_people) == (n, asks)


def refusal(**sections: object) -> str:
    with pytest.raises(UserError) as refused:
        LoopConfig.parse(sections, "loop.yaml")
    return str(refused.value)


def test_a_precision_that_the_prompts_cannot_give_is_refused() -> None:
    assert refusal(evaluation={"prompts": 384}) == (
        "loop.yaml: evaluation.precision 0.05 takes 385 judgments of an opponent, one for each prompt, and "
        "evaluation.prompts is 384: raise one of the two, or set evaluation.human_judgments."
    )
    assert LoopConfig.parse({"evaluation": {"prompts": 385}}, "").evaluation.asks_people
    assert LoopConfig.parse({"evaluation": {"prompts": 100, "human_judgments": 0}}, "")


def test_a_precision_that_gives_the_gate_too_little_is_refused() -> None:
    assert refusal(evaluation={"precision": 0.1}) == (
        "loop.yaml: evaluation.precision 0.1 takes 97 judgments of an opponent; gate.min_judgments asks for 100: "
        "lower one of the two."
    )
    assert "half of them are against the champion" in refusal(evaluation={"human_judgments": 199})
    assert LoopConfig.parse({"evaluation": {"human_judgments": 200}}, "")
    assert LoopConfig.parse({"evaluation": {"precision": 0.1}, "gate": {"min_judgments": 97}}, "")
