"""The promotion gate: one pure function of figures and settings."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal

from rlhf_dagster.evaluation.settings import GateSettings
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, PEOPLE, POLICY, REWARD_MODEL, SFT, find_win_rate

Outcome = Literal["pass", "fail", "not enough judgments"]
Check = tuple[Outcome, str]


@dataclass(frozen=True)
class GateDecision:
    """``reasons`` are sentences: all rules where the gate passes, otherwise those that stand in the way."""

    outcome: Outcome
    reasons: list[str]

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gate(
    report: dict[str, Any], human: dict[str, Any] | None, settings: GateSettings, *, human_required: bool
) -> GateDecision:
    """Whether a policy may become the champion.

    ``report`` is the dict of :func:`report.build_report`; ``human`` holds the people's ``win_rates`` in the same form,
    or is None where nobody has judged. With ``human_required`` the people's win rate decides, otherwise the reward
    model's, so ``gate(report, None, settings, human_required=False)`` is also the filter before people are asked. A
    figure that is missing or not a number fails. The gold judge, a truth that no real loop has, is never read.
    """
    policies = report.get("policies") or {}
    policy, sft = policies.get(POLICY) or {}, policies.get(SFT) or {}
    source, judges = (human or {}, PEOPLE) if human_required else (report, (REWARD_MODEL,))
    judged_by = "people's A/B judgments" if human_required else f"the {REWARD_MODEL}"
    rate = find_win_rate(source.get("win_rates") or [], judges, BEHAVIOUR) or {}
    checks = [
        _win_rate_check(rate, judged_by, settings, missing_is_waiting=human_required),
        _kl_check(policy, settings),
        _distinct_check(policy, settings),
        _length_check(policy, sft, settings),
    ]
    outcomes = [outcome for outcome, _ in checks]
    outcome: Outcome = "fail" if "fail" in outcomes else max(outcomes, key=("pass", "not enough judgments").index)
    return GateDecision(outcome, [sentence for found, sentence in checks if outcome == "pass" or found != "pass"])


def _win_rate_check(rate: dict[str, Any], judged_by: str, settings: GateSettings, *, missing_is_waiting: bool) -> Check:
    n = _number(rate, "n")
    if missing_is_waiting and not rate:
        n = 0.0
    if n is None:
        return "fail", f"There is no win rate against the behaviour policy by {judged_by}."
    if n < settings.min_judgments:
        needed = f"{settings.min_judgments} are needed"
        return "not enough judgments", f"{n:.0f} comparisons with the behaviour policy by {judged_by}; {needed}."
    value, low, high = (_number(rate, name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "fail", f"The win rate against the behaviour policy by {judged_by} is not a number."
    kept = low > settings.min_win_rate
    rule = f"its lower end must be above {settings.min_win_rate:.1%}{'' if kept else ', and is not'}"
    share = f"{value:.1%} of {n:.0f} comparisons by {judged_by} (95% interval {low:.1%} to {high:.1%})"
    return _outcome(kept), f"Preferred to the behaviour policy on {share}; {rule}."


def _kl_check(policy: dict[str, Any], settings: GateSettings) -> Check:
    def sentence(kl: float, kept: bool) -> str:
        verdict = "within" if kept else "over"
        return f"The sequence KL to SFT is {kl:.2f} nats, {verdict} the budget of {settings.max_kl:g}."

    return _check(_number(policy.get("kl"), "value"), "sequence KL to SFT", lambda kl: kl <= settings.max_kl, sentence)


def _distinct_check(policy: dict[str, Any], settings: GateSettings) -> Check:
    def sentence(share: float, kept: bool) -> str:
        verdict = "at least" if kept else "less than"
        return f"{share:.1%} of the responses are distinct, {verdict} the {settings.min_distinct:.1%} asked for."

    share = _number(policy, "distinct")
    return _check(share, "share of distinct responses", lambda share: share >= settings.min_distinct, sentence)


def _length_check(policy: dict[str, Any], sft: dict[str, Any], settings: GateSettings) -> Check:
    def sentence(ratio: float, kept: bool) -> str:
        low, high = 1 / settings.max_length_ratio, settings.max_length_ratio
        verdict = "within" if kept else "outside"
        return f"Responses are {ratio:.2f} times as long as SFT's, {verdict} the limits of {low:.2f} and {high:.2f}."

    length, reference = _number(policy, "length"), _number(sft, "length")
    ratio = length / reference if length is not None and reference else None
    limit = settings.max_length_ratio
    return _check(ratio, "ratio of response lengths to SFT's", lambda ratio: 1 / limit <= ratio <= limit, sentence)


def _check(
    number: float | None, name: str, keeps: Callable[[float], bool], sentence: Callable[[float, bool], str]
) -> Check:
    if number is None:
        return "fail", f"The {name} is missing or not a number."
    kept = keeps(number)
    return _outcome(kept), sentence(number, kept)


def _outcome(kept: bool) -> Outcome:
    return "pass" if kept else "fail"


def _number(figures: dict[str, Any] | None, name: str) -> float | None:
    """The figure, or None where it is missing or not a finite number."""
    figure = (figures or {}).get(name)
    if isinstance(figure, bool) or not isinstance(figure, Real) or not math.isfinite(figure):
        return None
    return float(figure)
