"""The gate: what passes, what fails, what waits, and what it never reads."""

import copy
import math
from typing import Any

import pytest

from rlhf_dagster.evaluation.gate import GateDecision, gate
from rlhf_dagster.evaluation.settings import GateSettings
from rlhf_dagster.evaluation.win_rate import ANNOTATORS, GOLD_JUDGE, REWARD_MODEL, SIMULATED_ANNOTATORS

MISSING = object()


def rate(judge: str, low: Any = 0.6, n: Any = 512, value: Any = 0.7, against: str = "behaviour") -> dict[str, Any]:
    return {"judge": judge, "against": against, "value": value, "low": low, "high": 0.8, "n": n}


def report(**policy: Any) -> dict[str, Any]:
    figures = {"kl": {"value": 6.0}, "distinct": 0.99, "length": 24.0} | policy
    return {
        "policies": {"policy": figures, "sft": {"length": 20.0}},
        "win_rates": [rate(REWARD_MODEL), rate(GOLD_JUDGE, low=0.55)],
    }


def decide(report: dict[str, Any], human: dict[str, Any] | None = None, *, required: bool = False) -> GateDecision:
    return gate(report, human, GateSettings(), human_required=required)


def people(**changes: Any) -> dict[str, Any]:
    return {"win_rates": [rate(ANNOTATORS, **({"n": 150} | changes))]}


def test_a_good_policy_passes_with_every_rule_named() -> None:
    decision = decide(report())
    assert decision.passed
    assert len(decision.reasons) == 4
    assert all(sentence.endswith(".") for sentence in decision.reasons)
    assert "70.0% of 512" in decision.reasons[0]
    assert "6.00 nats" in decision.reasons[1]


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"kl": {"value": 10.01}}, "The sequence KL to SFT is 10.01 nats, over the budget of 10."),
        ({"distinct": 0.94}, "94.0% of the responses are distinct, less than the 95.0% asked for."),
        (
            {"length": 31.0},
            "Responses are 1.55 times as long as SFT's, outside the limits of 0.67 and 1.50.",
        ),
        (
            {"length": 10.0},
            "Responses are 0.50 times as long as SFT's, outside the limits of 0.67 and 1.50.",
        ),
    ],
)
def test_each_rule_fails_alone(policy: dict[str, Any], sentence: str) -> None:
    assert decide(report(**policy)) == GateDecision("fail", [sentence])


def test_limits_themselves_are_kept() -> None:
    assert decide(report(kl={"value": 10.0}, distinct=0.95, length=30.0)).passed


def test_the_lower_end_must_be_above_the_minimum() -> None:
    bad = report() | {"win_rates": [rate(REWARD_MODEL, low=0.5)]}
    decision = decide(bad)
    assert decision.outcome == "fail"
    assert decision.reasons[0].endswith("must be above 50.0%, and is not.")


@pytest.mark.parametrize("wrong", [math.nan, math.inf, None, "6", True, MISSING])
@pytest.mark.parametrize("path", [("kl", "value"), ("distinct",), ("length",)])
def test_a_figure_that_is_no_number_fails(path: tuple[str, ...], wrong: Any) -> None:
    bad = report()
    holder = bad["policies"]["policy"]
    for key in path[:-1]:
        holder = holder[key]
    if wrong is MISSING:
        del holder[path[-1]]
    else:
        holder[path[-1]] = wrong
    decision = decide(bad)
    assert decision.outcome == "fail"
    assert "missing or not a number" in decision.reasons[0]


@pytest.mark.parametrize("key", ["value", "low", "n"])
@pytest.mark.parametrize("wrong", [math.nan, None])
def test_a_win_rate_that_is_no_number_fails(key: str, wrong: float | None) -> None:
    assert decide(report() | {"win_rates": [rate(REWARD_MODEL) | {key: wrong}]}).outcome == "fail"
    broken = {"win_rates": [rate(ANNOTATORS) | {key: wrong}]}
    assert decide(report(), broken, required=True).outcome == "fail"


@pytest.mark.parametrize("empty", [{}, {"policies": None}, {"policies": {"policy": None}, "win_rates": None}])
def test_an_empty_report_fails(empty: dict[str, Any]) -> None:
    assert decide(empty).outcome == "fail"
    assert decide(empty, people(), required=True).outcome == "fail"


def test_an_sft_length_of_zero_fails() -> None:
    bad = report()
    bad["policies"]["sft"]["length"] = 0.0
    assert decide(bad).outcome == "fail"


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


def test_too_few_prompts_is_not_enough_for_the_reward_model_either() -> None:
    assert decide(report() | {"win_rates": [rate(REWARD_MODEL, n=32)]}).outcome == "not enough judgments"


def test_simulated_judgments_in_the_report_are_not_the_people_who_are_required() -> None:
    measured = report() | {"win_rates": [rate(REWARD_MODEL), rate(SIMULATED_ANNOTATORS)]}
    assert decide(measured, None, required=True).outcome == "not enough judgments"


def test_a_failed_rule_outweighs_missing_judgments() -> None:
    decision = decide(report(kl={"value": 50.0}), people(n=3), required=True)
    assert decision.outcome == "fail"
    assert len(decision.reasons) == 2


def test_judgments_against_sft_do_not_stand_in_for_the_behaviour_policy() -> None:
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


def test_the_gate_changes_nothing() -> None:
    figures, human = report(), people()
    before = copy.deepcopy((figures, human))
    assert decide(figures, human, required=True) == decide(figures, human, required=True)
    assert (figures, human) == before
