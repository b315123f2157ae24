"""The promotion gate: one pure function of figures and settings."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation import rules
from rlhf_dagster.evaluation.rules import Verdict

Outcome = Literal["pass", "fail", "not enough judgments", "waiting for approval"]
"""``waiting for approval`` is what a promotion makes of a pass; :func:`gate` itself never says so."""
NOT_IN_THE_WAY = ("pass", "not measured")
PREFERRED = (rules.win_rate_rule, rules.length_controlled_rule)
"""Rules about win rates, which people may give."""
MEASURED = (
    rules.kl_rule,
    rules.length_rule,
    rules.distinct_rule,
    rules.repetition_rule,
    rules.copying_rule,
    rules.sentences_rule,
    rules.perplexity_rule,
    rules.drift_rule,
)


@dataclass(frozen=True)
class GateDecision:
    outcome: Outcome
    rules: list[Verdict]
    """The verdict of every rule that is switched on."""

    @property
    def passed(self) -> bool:
        return self.outcome == "pass"

    @property
    def reasons(self) -> list[str]:
        """Sentences: of all rules where the gate passes, otherwise of those that stand in the way."""
        return [verdict.sentence for verdict in (self.rules if self.passed else self.alarms)]

    @property
    def alarms(self) -> list[Verdict]:
        """The rules that stand in the way."""
        return [verdict for verdict in self.rules if verdict.outcome not in NOT_IN_THE_WAY]


def gate(
    report: dict[str, Any], human: dict[str, Any] | None, settings: GateSettings, *, human_required: bool
) -> GateDecision:
    """Whether a policy may become the champion.

    ``report`` is the dict of :func:`report.build_report`; ``human`` holds the people's ``win_rates`` in the same form,
    or is None where nobody has judged. With ``human_required`` the people's win rate decides, otherwise the reward
    model's, so ``gate(report, None, settings, human_required=False)`` is also the filter before people are asked. A
    rule whose figure is missing or not a number fails, unless ``report["unmeasured"]`` says under the rule's name why
    it could not be measured; then the verdict is ``not measured``, which does not stand in the way. The gold judge's
    figures are never read, because no real loop has them.
    """
    source = (human or {}) if human_required else report
    rates = source.get("win_rates") or []
    preferred = [rule(rates, settings, by_people=human_required) for rule in PREFERRED]
    found = [*preferred, *(rule(report, settings) for rule in MEASURED)]
    return decision_of([verdict for verdict in found if verdict is not None])


def decision_of(verdicts: list[Verdict]) -> GateDecision:
    """``fail`` if any rule fails, else ``not enough judgments`` if any rule says so, else ``pass``."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if "fail" in outcomes:
        return GateDecision("fail", verdicts)
    return GateDecision("not enough judgments" if "not enough judgments" in outcomes else "pass", verdicts)


def rules_as_dicts(verdicts: list[Verdict]) -> list[dict[str, str]]:
    """JSON's form: ``rule``, ``outcome`` and ``sentence`` of each."""
    return [asdict(verdict) for verdict in verdicts]


def alarm_names(found: list[dict[str, str]]) -> list[str]:
    """Names of the rules that stand in the way, from verdicts in JSON's form."""
    return [verdict["rule"] for verdict in found if verdict["outcome"] not in NOT_IN_THE_WAY]
