"""The gate as a whole: what passes, what fails, what waits, and what it never reads. Each rule is in test_rules.py."""

from typing import Any

import pytest
from gate_figures import decide, people, rate, report

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.gate import GateDecision, alarm_names, rules_as_dicts
from rlhf_dagster.evaluation.win_rate import ANNOTATORS, GOLD_JUDGE, REWARD_MODEL, SIMULATED_ANNOTATORS

RULES = [
    "min_win_rate",
    "max_kl",
    "max_length_ratio",
    "min_distinct",
    "max_repetition",
    "max_copying",
    "max_perplexity_ratio",
    "max_reward_drift",
]
OFF: dict[str, Any] = dict.fromkeys(RULES)


def alarms(decision: GateDecision) -> list[str]:
    return alarm_names(rules_as_dicts(decision.rules))


def test_a_good_policy_passes_with_every_rule_named() -> None:
    decision = decide(report())
    assert decision.passed
    assert [verdict.rule for verdict in decision.rules] == RULES
    assert decision.reasons == [verdict.sentence for verdict in decision.rules]
    assert all(sentence.endswith(".") for sentence in decision.reasons)
    assert alarms(decision) == []


def test_what_fails_is_named_and_the_rest_is_kept() -> None:
    decision = decide(report(kl={"value": 50.0}, repetition=0.9))
    assert decision.outcome == "fail"
    assert alarms(decision) == ["max_kl", "max_repetition"]
    assert decision.reasons == [verdict.sentence for verdict in decision.alarms]
    assert len(decision.rules) == len(RULES)


def test_every_rule_can_be_switched_off() -> None:
    decision = decide({}, settings=GateSettings(**OFF))
    assert (decision.outcome, decision.rules) == ("pass", [])
    for rule in RULES:
        kept = decide({}, settings=GateSettings(**OFF | {rule: GateSettings.model_fields[rule].default}))
        assert [verdict.rule for verdict in kept.rules] == [rule]
        assert kept.outcome == "fail"


@pytest.mark.parametrize("empty", [{}, {"policies": None}, {"policies": {"policy": None}, "win_rates": None}])
def test_an_empty_report_fails(empty: dict[str, Any]) -> None:
    assert decide(empty).outcome == "fail"
    assert decide(empty, people(), required=True).outcome == "fail"


def test_people_decide_where_they_are_required() -> None:
    poor_proxy = report() | {"win_rates": [rate(REWARD_MODEL, low=0.1)]}
    assert decide(poor_proxy, people(), required=True).passed
    assert decide(report(), people(low=0.49), required=True).outcome == "fail"
    assert decide(report(), {"win_rates": [rate(SIMULATED_ANNOTATORS)]}, required=True).passed


def test_people_are_not_read_where_they_are_not_required() -> None:
    assert decide(report(), people(low=0.0)).passed


@pytest.mark.parametrize("human", [None, {}, {"win_rates": []}, people(n=99), people(n=0, value=None, low=0.0)])
def test_too_few_judgments_is_its_own_outcome(human: dict[str, Any] | None) -> None:
    decision = decide(report(), human, required=True)
    assert decision.outcome == "not enough judgments"
    assert not decision.passed
    assert "100 are needed" in decision.reasons[0]
    assert alarms(decision) == ["min_win_rate"]


def test_too_few_prompts_is_not_enough_for_the_reward_model_either() -> None:
    assert decide(report() | {"win_rates": [rate(REWARD_MODEL, n=32)]}).outcome == "not enough judgments"


def test_simulated_judgments_in_the_report_are_not_the_people_who_are_required() -> None:
    measured = report() | {"win_rates": [rate(REWARD_MODEL), rate(SIMULATED_ANNOTATORS)]}
    assert decide(measured, None, required=True).outcome == "not enough judgments"


def test_a_failed_rule_outweighs_missing_judgments() -> None:
    decision = decide(report(kl={"value": 50.0}), people(n=3), required=True)
    assert decision.outcome == "fail"
    assert len(decision.reasons) == 2


def test_judgments_against_sft_do_not_stand_in_for_the_champion() -> None:
    assert decide(report() | {"win_rates": [rate(REWARD_MODEL, against="sft")]}).outcome == "fail"
    assert decide(report(), people(against="sft"), required=True).outcome == "not enough judgments"


class Guarded(dict):
    """A gold judge's figures, which must not be read."""

    def get(self, key: str, default: Any = None) -> Any:
        if key not in ("judge", "against"):
            raise AssertionError(f"the gate read the gold judge's {key}")
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        return self.get(key)


@pytest.mark.parametrize("required", [False, True])
def test_the_gold_judge_is_never_read(required: bool) -> None:
    gold = [Guarded(rate(GOLD_JUDGE, against=against)) for against in ("behaviour", "sft")]
    figures = report(scores={GOLD_JUDGE: Guarded(value=1.0)}) | {"win_rates": [*gold, rate(REWARD_MODEL)]}
    assert decide(figures, {"win_rates": [*gold, rate(ANNOTATORS)]}, required=required).passed
    only_gold = report() | {"win_rates": gold}
    assert decide(only_gold, {"win_rates": gold}, required=required).outcome != "pass"


def test_a_policy_worse_than_sft_fails_by_the_reward_model_and_by_people() -> None:
    worse = report() | {"win_rates": [rate(REWARD_MODEL, value=0.3, low=0.26)]}
    assert alarms(decide(worse)) == ["min_win_rate"]
    judged = decide(report(), people(value=0.3, low=0.26), required=True)
    assert (judged.outcome, alarms(judged)) == ("fail", ["min_win_rate"])


def test_a_reward_hack_is_stopped_though_its_own_reward_model_is_delighted() -> None:
    """The proxy is up, people's preference is down: the halves drift apart, and people say no."""
    hacked = report(drift=0.31) | {"win_rates": [rate(REWARD_MODEL, value=0.97, low=0.95)]}
    early = decide(hacked)
    assert (early.outcome, [verdict.rule for verdict in early.alarms]) == ("fail", ["max_reward_drift"])
    judged = decide(hacked, people(value=0.35, low=0.3), required=True)
    assert [verdict.rule for verdict in judged.alarms] == ["min_win_rate", "max_reward_drift"]
