"""Each rule of the gate by itself: its sentence, its limit, a figure that is missing, and switched off."""

import math
from typing import Any

import pytest
from gate_figures import decide, people, rate, report, reward_drift

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.gate import MEASURED
from rlhf_dagster.evaluation.rules import (
    Verdict,
    drift_rule,
    length_controlled_rule,
    perplexity_rule,
    sentences_rule,
    win_rate_rule,
)
from rlhf_dagster.evaluation.win_rate import ANNOTATORS, REWARD_MODEL

SETTINGS = GateSettings()
REPEATED = "{} of a response's word pairs repeat an earlier one, of SFT's 3.0%: a difference {} the limit of 10.0%."
COPIED = "{} of a response's word triples stand in its prompt, of SFT's 30.0%: a difference {} the limit of 20.0%."
DRIFT = "the policy beats SFT on 90.0% by the reward model and 60.0% by half B (difference {}; the alarm is at 15.0%)."


@pytest.mark.parametrize(
    ("rule", "changes", "sentence"),
    [
        ("max_kl", {"kl": {"value": 6.0}}, "The sequence KL to SFT is 6.00 nats, within the budget of 10."),
        ("min_distinct", {"distinct": 0.95}, "95.0% of the responses are distinct, at least the 95.0% asked for."),
        (
            "max_length_ratio",
            {"length": 30.0},
            "Responses are 1.50 times as long as SFT's, within the limits of 0.67 and 1.50.",
        ),
        (
            "max_repetition",
            {"repetition": 0.05},
            REPEATED.format("5.0%", "within"),
        ),
        (
            "max_copying",
            {"copied_trigrams": 0.5},
            COPIED.format("50.0%", "within"),
        ),
        (
            "max_perplexity_ratio",
            {"perplexity": 2.0},
            "Perplexity on pretraining text is 2.00 times SFT's, within the limit of 2.00.",
        ),
        (
            "max_reward_drift",
            {"drift": 0.19},
            "Reward models trained on halves of the labels agree with the one on all: "
            + DRIFT.format("19.0%, 95% interval 14.0% to 90.0%"),
        ),
    ],
)
def test_a_rule_that_is_kept_says_by_how_much(rule: str, changes: dict[str, Any], sentence: str) -> None:
    assert Verdict(rule, "pass", sentence) in decide(report(**changes)).rules


@pytest.mark.parametrize(
    ("rule", "changes", "sentence"),
    [
        ("max_kl", {"kl": {"value": 10.01}}, "The sequence KL to SFT is 10.01 nats, over the budget of 10."),
        ("min_distinct", {"distinct": 0.94}, "94.0% of the responses are distinct, less than the 95.0% asked for."),
        (
            "max_length_ratio",
            {"length": 31.0},
            "Responses are 1.55 times as long as SFT's, outside the limits of 0.67 and 1.50.",
        ),
        (
            "max_length_ratio",
            {"length": 10.0},
            "Responses are 0.50 times as long as SFT's, outside the limits of 0.67 and 1.50.",
        ),
        (
            "max_repetition",
            {"repetition": 0.14},
            REPEATED.format("14.0%", "over"),
        ),
        (
            "max_copying",
            {"copied_trigrams": 0.51},
            COPIED.format("51.0%", "over"),
        ),
        (
            "max_perplexity_ratio",
            {"perplexity": 2.01},
            "Perplexity on pretraining text is 2.01 times SFT's, over the limit of 2.00.",
        ),
        (
            "max_reward_drift",
            {"drift": 0.21},
            "Over-optimisation: reward models trained on halves of the labels drift apart: "
            + DRIFT.format("21.0%, 95% interval 16.0% to 90.0%"),
        ),
    ],
)
def test_a_rule_that_is_broken_fails_alone(rule: str, changes: dict[str, Any], sentence: str) -> None:
    decision = decide(report(**changes))
    assert (decision.outcome, decision.alarms) == ("fail", [Verdict(rule, "fail", sentence)])


def test_more_copying_and_repeating_than_sft_counts_and_not_how_much_there_is() -> None:
    """A task whose SFT copies nearly all, as extractive summaries do, is not refused for it."""
    assert decide(report(copied_trigrams=0.95, repetition=0.5, sft={"copied_trigrams": 0.9, "repetition": 0.45})).passed


MISSING = object()
PATHS = {
    "max_kl": ("policies", "policy", "kl", "value"),
    "min_distinct": ("policies", "policy", "distinct"),
    "max_length_ratio": ("policies", "policy", "length"),
    "max_repetition": ("policies", "policy", "repetition"),
    "max_copying": ("policies", "policy", "copied_trigrams"),
    "max_perplexity_ratio": ("alignment_tax", "value"),
    "max_reward_drift": ("reward_drift", "value"),
}
OF_SFT = {"max_length_ratio": "length", "max_repetition": "repetition", "max_copying": "copied_trigrams"}


def replaced(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    figures = report()
    holder = figures
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    if value is MISSING:
        del holder[path[-1]]
    return figures


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 10**400, None, "6", True, MISSING])
@pytest.mark.parametrize("rule", PATHS)
def test_a_figure_that_is_no_number_fails(rule: str, wrong: Any) -> None:
    decision = decide(replaced(PATHS[rule], wrong))
    assert (decision.outcome, [verdict.rule for verdict in decision.alarms]) == ("fail", [rule])
    assert "missing or not a number" in decision.reasons[0]


@pytest.mark.parametrize(("rule", "figure"), OF_SFT.items())
def test_a_figure_of_sft_that_is_missing_fails(rule: str, figure: str) -> None:
    decision = decide(replaced(("policies", "sft", figure), None))
    assert [verdict.rule for verdict in decision.alarms] == [rule]


def test_an_sft_length_of_zero_fails() -> None:
    assert [verdict.rule for verdict in decide(report(sft={"length": 0.0})).alarms] == ["max_length_ratio"]


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_drift_without_an_interval_fails(end: str) -> None:
    verdict = drift_rule({"reward_drift": reward_drift(0.02, 0.0) | {end: None}}, SETTINGS)
    assert verdict is not None
    assert verdict.outcome == "fail"


def test_what_cannot_be_measured_is_said_and_stands_in_nobodys_way() -> None:
    why = {"max_reward_drift": "12 comparisons are too few.", "max_perplexity_ratio": "No text is held out."}
    figures = report() | {"reward_drift": None, "alignment_tax": None, "unmeasured": why}
    decision = decide(figures)
    assert decision.passed
    for rule, sentence in why.items():
        assert Verdict(rule, "not measured", sentence) in decision.rules
        assert sentence in decision.reasons


def test_only_the_rules_own_reason_excuses_a_missing_figure() -> None:
    other = {"unmeasured": {"max_kl": "Nobody knows."}}
    for rule in (drift_rule, perplexity_rule):
        verdict = rule(other, SETTINGS)
        assert verdict is not None
        assert verdict.outcome == "fail"
    measured_wrongly = {"reward_drift": reward_drift(None, None), "unmeasured": {"max_reward_drift": "Too few."}}
    verdict = drift_rule(measured_wrongly, SETTINGS)
    assert verdict is not None
    assert verdict.outcome == "fail"


@pytest.mark.parametrize("rule", MEASURED)
def test_a_rule_that_is_switched_off_says_nothing(rule: Any) -> None:
    on = SETTINGS.changed(max_copied_sentences=0.2)
    name = rule({}, on).rule
    assert rule(report(), SETTINGS.changed(**{name: None})) is None
    assert rule({}, SETTINGS.changed(**{name: None})) is None


def sentences(policy: Any, sft: Any, limit: float = 0.2) -> Verdict | None:
    shares = {"policy": policy, "sft": sft}
    policies = {role: {"copying": {"copied_sentences": {"value": share}}} for role, share in shares.items()}
    return sentences_rule({"policies": policies}, SETTINGS.changed(max_copied_sentences=limit))


def test_copied_sentences_are_compared_with_sfts() -> None:
    said = "of a response's sentences stand in its prompt, of SFT's 30.0%: a difference {} the limit of 20.0%."
    within, over = (f"{share} {said.format(verdict)}" for share, verdict in (("50.0%", "within"), ("51.0%", "over")))
    assert sentences(0.5, 0.3) == Verdict("max_copied_sentences", "pass", within)
    assert sentences(0.51, 0.3) == Verdict("max_copied_sentences", "fail", over)


@pytest.mark.parametrize("report", [{}, {"policies": {"policy": {"copying": None}, "sft": {}}}])
def test_a_report_that_lacks_copied_sentences_fails_the_rule(report: dict[str, Any]) -> None:
    verdict = sentences_rule(report, SETTINGS.changed(max_copied_sentences=0.2))
    assert verdict is not None
    assert (verdict.outcome, "missing or not a number" in verdict.sentence) == ("fail", True)


def equally_long(low: Any = 0.55, **changes: Any) -> Verdict | None:
    controlled = {"length_controlled": {"value": 0.6, "low": low, "high": 0.7, "n": 512}}
    settings = SETTINGS.changed(min_length_controlled_win_rate=0.5)
    return length_controlled_rule([rate(REWARD_MODEL) | controlled | changes], settings, by_people=False)


def test_the_win_rate_at_equal_length_has_a_rule_of_its_own() -> None:
    name, said = "min_length_controlled_win_rate", "its lower end must be above 50.0%"
    share = "Preferred to the champion on 60.0% by the reward model if both were equally long"
    assert equally_long() == Verdict(name, "pass", f"{share} (95% interval 55.0% to 70.0%); {said}.")
    assert equally_long(0.5) == Verdict(name, "fail", f"{share} (95% interval 50.0% to 70.0%); {said}, and is not.")
    few = equally_long(n=99)
    assert few is not None
    assert few.outcome == "not enough judgments"
    unknown = equally_long(length_controlled=None)
    assert unknown is not None
    assert (unknown.outcome, "length-controlled win rate" in unknown.sentence) == ("fail", True)
    assert length_controlled_rule([], SETTINGS, by_people=True) is None


def win_rate(judge: str = REWARD_MODEL, *, by_people: bool = False, **changes: Any) -> Verdict:
    verdict = win_rate_rule([rate(judge) | changes], SETTINGS, by_people=by_people)
    assert verdict is not None
    return verdict


def test_the_win_rate_says_who_judged_and_how_many() -> None:
    assert win_rate() == Verdict(
        "min_win_rate",
        "pass",
        "Preferred to the champion on 70.0% of 512 comparisons by the reward model (95% interval 60.0% to 80.0%); "
        "its lower end must be above 50.0%.",
    )
    judged = win_rate(ANNOTATORS, by_people=True, n=100)
    assert (judged.outcome, "100 comparisons by people's A/B judgments" in judged.sentence) == ("pass", True)


def test_the_lower_end_must_be_above_the_minimum() -> None:
    verdict = win_rate(low=0.5)
    assert verdict.outcome == "fail"
    assert verdict.sentence.endswith("must be above 50.0%, and is not.")


@pytest.mark.parametrize("key", ["value", "low", "high", "n"])
@pytest.mark.parametrize("wrong", [math.nan, None])
def test_a_win_rate_that_is_no_number_fails(key: str, wrong: float | None) -> None:
    assert win_rate(**{key: wrong}).outcome == "fail"
    assert win_rate(ANNOTATORS, by_people=True, **{key: wrong}).outcome == "fail"


def test_no_judgment_by_people_is_waited_for_and_none_by_the_reward_model_fails() -> None:
    waiting, failing = (win_rate_rule([], SETTINGS, by_people=by_people) for by_people in (True, False))
    assert waiting == Verdict(
        "min_win_rate",
        "not enough judgments",
        "0 comparisons with the champion by people's A/B judgments; 100 are needed.",
    )
    assert failing == Verdict("min_win_rate", "fail", "There is no win rate against the champion by the reward model.")


def test_without_a_win_rate_rule_nobody_is_waited_for() -> None:
    settings = SETTINGS.changed(min_win_rate=None)
    assert win_rate_rule([], settings, by_people=True) is None
    assert decide(report(), people(n=0), required=True, settings=settings).passed
