"""The rules of the promotion gate, each a function of figures and settings that gives a verdict with its sentence.

A figure that is missing or not a number fails, unless the report says why it could not be measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from rlhf_dagster.common.intervals import finite_or_none
from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, PEOPLE, POLICY, REWARD_MODEL, SFT, find_win_rate

RuleOutcome = Literal["pass", "fail", "not enough judgments", "not measured"]
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What one rule says; ``rule`` is the name of its setting."""

    rule: str
    outcome: RuleOutcome
    sentence: str


def win_rate_rule(rates: list[dict[str, Any]], settings: GateSettings, *, by_people: bool) -> Verdict | None:
    """Is the policy preferred to the champion? ``rates`` are win rates in JSON's form."""
    least = settings.min_win_rate
    if least is None:
        return None
    judged_by = "people's A/B judgments" if by_people else f"the {REWARD_MODEL}"
    rate = find_win_rate(rates, PEOPLE if by_people else (REWARD_MODEL,), BEHAVIOUR) or {}
    n = 0.0 if by_people and not rate else number(rate, "n")
    if n is None:
        return _win_rate("fail", f"There is no win rate against the champion by {judged_by}.")
    if n < settings.min_judgments:
        needed = f"{settings.min_judgments} are needed"
        return _win_rate("not enough judgments", f"{n:.0f} comparisons with the champion by {judged_by}; {needed}.")
    value, low, high = (number(rate, name) for name in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return _win_rate("fail", f"The win rate against the champion by {judged_by} is not a number.")
    kept = low > least
    rule = f"its lower end must be above {least:.1%}{'' if kept else ', and is not'}"
    share = f"{value:.1%} of {n:.0f} comparisons by {judged_by} (95% interval {low:.1%} to {high:.1%})"
    return _win_rate(_outcome(kept), f"Preferred to the champion on {share}; {rule}.")


def length_controlled_rule(rates: list[dict[str, Any]], settings: GateSettings, *, by_people: bool) -> Verdict | None:
    """Is the policy preferred to the champion for more than its length? ``rates`` are those of the win rate's rule."""
    name, least = "min_length_controlled_win_rate", settings.min_length_controlled_win_rate
    if least is None:
        return None
    judged_by = "people's A/B judgments" if by_people else f"the {REWARD_MODEL}"
    rate = find_win_rate(rates, PEOPLE if by_people else (REWARD_MODEL,), BEHAVIOUR) or {}
    n, controlled = number(rate, "n") or 0.0, rate.get("length_controlled")
    if n < settings.min_judgments:
        needed = f"{settings.min_judgments} are needed"
        said = f"{n:.0f} comparisons with the champion by {judged_by} say how it would be at equal length; {needed}."
        return Verdict(name, "not enough judgments", said)
    value, low, high = (number(controlled, end) for end in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return _missing(name, f"length-controlled win rate against the champion by {judged_by}")
    kept = low > least
    rule = f"its lower end must be above {least:.1%}{'' if kept else ', and is not'}"
    share = f"{value:.1%} by {judged_by} if both were equally long (95% interval {low:.1%} to {high:.1%})"
    return Verdict(name, _outcome(kept), f"Preferred to the champion on {share}; {rule}.")


def kl_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    def sentence(kl: float, limit: float, kept: bool) -> str:
        return f"The sequence KL to SFT is {kl:.2f} nats, {'within' if kept else 'over'} the budget of {limit:g}."

    kl = number(_of(report, POLICY).get("kl"), "value")
    return _at_most("max_kl", kl, settings.max_kl, "sequence KL to SFT", sentence)


def distinct_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    least = settings.min_distinct
    if least is None:
        return None
    share = number(_of(report, POLICY), "distinct")
    if share is None:
        return _missing("min_distinct", "share of distinct responses")
    kept = share >= least
    verdict = "at least" if kept else "less than"
    said = f"{share:.1%} of the responses are distinct, {verdict} the {least:.1%} asked for."
    return Verdict("min_distinct", _outcome(kept), said)


def length_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    limit = settings.max_length_ratio
    if limit is None:
        return None
    length, reference = number(_of(report, POLICY), "length"), number(_of(report, SFT), "length")
    if length is None or not reference:
        return _missing("max_length_ratio", "ratio of response lengths to SFT's")
    ratio = length / reference
    kept = 1 / limit <= ratio <= limit
    limits = f"{'within' if kept else 'outside'} the limits of {1 / limit:.2f} and {limit:.2f}"
    return Verdict("max_length_ratio", _outcome(kept), f"Responses are {ratio:.2f} times as long as SFT's, {limits}.")


def repetition_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    """Compared with SFT, because how much a language repeats itself depends on the task."""
    said = "of a response's word pairs repeat an earlier one"
    return _excess("max_repetition", report, "repetition", settings.max_repetition, said)


def copying_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    """Compared with SFT, because some tasks ask for words of the prompt: a summary, a correction."""
    said = "of a response's word triples stand in its prompt"
    return _excess("max_copying", report, "copied_trigrams", settings.max_copying, said)


def sentences_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    """Compared with SFT, as :func:`copying_rule`."""
    shares = [(_of(report, role).get("copying") or {}).get("copied_sentences") for role in (POLICY, SFT)]
    own, reference = (number(share, "value") for share in shares)
    said = "of a response's sentences stand in its prompt"
    return _compared("max_copied_sentences", own, reference, settings.max_copied_sentences, said, "copied sentences")


def perplexity_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    def sentence(ratio: float, limit: float, kept: bool) -> str:
        verdict = "within" if kept else "over"
        return f"Perplexity on pretraining text is {ratio:.2f} times SFT's, {verdict} the limit of {limit:.2f}."

    name, ratio = "max_perplexity_ratio", number(report.get("alignment_tax"), "value")
    if ratio is None and settings.max_perplexity_ratio is not None and (why := _unmeasured(report, name)):
        return Verdict(name, "not measured", why)
    return _at_most(name, ratio, settings.max_perplexity_ratio, "perplexity on pretraining text", sentence)


def drift_rule(report: Figures, settings: GateSettings) -> Verdict | None:
    """The over-optimisation alarm: fires where the interval's lower end is above the limit, so not by chance."""
    name, limit = "max_reward_drift", settings.max_reward_drift
    if limit is None:
        return None
    drift = report.get("reward_drift") or {}
    value, low, high = (number(drift, end) for end in ("value", "low", "high"))
    if value is None or low is None or high is None:
        why = _unmeasured(report, name)
        missing = _missing(name, "difference between reward models trained on halves of the labels")
        return Verdict(name, "not measured", why) if why and not drift else missing
    rates = {rate["judge"]: number(rate, "value") for rate in drift["win_rates"]}
    names = {REWARD_MODEL: f"the {REWARD_MODEL}"}
    between = " and ".join(f"{rates.get(name) or 0:.1%} by {names.get(name, name)}" for name in drift["between"])
    kept = low <= limit
    found = (
        f"the policy beats SFT on {between} (difference {value:.1%}, 95% interval {low:.1%} to {high:.1%}; "
        f"the alarm is at {limit:.1%})"
    )
    calm = f"Reward models trained on halves of the labels agree with the one on all: {found}."
    alarm = f"Over-optimisation: reward models trained on halves of the labels drift apart: {found}."
    return Verdict(name, _outcome(kept), calm if kept else alarm)


def number(figures: Figures | None, name: str) -> float | None:
    """The figure, or None where it is missing or not a finite number."""
    figure = (figures or {}).get(name)
    if isinstance(figure, bool) or not isinstance(figure, Real):
        return None
    try:
        found = float(figure)
    except OverflowError:
        return None
    return finite_or_none(found)


def _excess(rule: str, report: Figures, figure: str, limit: float | None, said: str) -> Verdict | None:
    """Whether a share exceeds SFT's by at most ``limit``."""
    own, reference = number(_of(report, POLICY), figure), number(_of(report, SFT), figure)
    return _compared(rule, own, reference, limit, said, figure.replace("_", " "))


def _compared(
    rule: str, own: float | None, reference: float | None, limit: float | None, said: str, figure: str
) -> Verdict | None:
    """The verdict on the policy's ``own`` share and that of the ``reference``, SFT."""
    if limit is None:
        return None
    if own is None or reference is None:
        return _missing(rule, f"policy's or SFT's {figure}")
    kept = own - reference <= limit
    verdict = "within" if kept else "over"
    sentence = f"{own:.1%} {said}, of SFT's {reference:.1%}: a difference {verdict} the limit of {limit:.1%}."
    return Verdict(rule, _outcome(kept), sentence)


def _at_most(
    rule: str, value: float | None, limit: float | None, what: str, sentence: Callable[[float, float, bool], str]
) -> Verdict | None:
    if limit is None:
        return None
    if value is None:
        return _missing(rule, what)
    return Verdict(rule, _outcome(value <= limit), sentence(value, limit, value <= limit))


def _missing(rule: str, what: str) -> Verdict:
    return Verdict(rule, "fail", f"The {what} is missing or not a number.")


def _unmeasured(report: Figures, rule: str) -> str:
    return str((report.get("unmeasured") or {}).get(rule) or "")


def _win_rate(outcome: RuleOutcome, sentence: str) -> Verdict:
    return Verdict("min_win_rate", outcome, sentence)


def _outcome(kept: bool) -> RuleOutcome:
    return "pass" if kept else "fail"


def _of(report: Figures, role: str) -> Figures:
    return (report.get("policies") or {}).get(role) or {}
