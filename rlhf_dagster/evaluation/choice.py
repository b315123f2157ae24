"""The choice of the arm whose policy is judged: a rule of figures that is fixed before anybody looks at them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation import rules
from rlhf_dagster.evaluation.win_rate import POLICY, SFT

OF_RESPONSES = (
    rules.kl_rule,
    rules.length_rule,
    rules.distinct_rule,
    rules.repetition_rule,
    rules.copying_rule,
)
"""The gate's rules whose figures responses alone have."""


@dataclass(frozen=True)
class Contender:
    """An arm's policy on held-out prompts."""

    arm: str
    title: str
    policy_id: str
    win_rates: Sequence[Mapping[str, Any]]
    """Against the champion, in JSON's form, by each reward model."""
    breaks: Sequence[str] = ()
    """The rules of the gate that its responses do not keep."""

    @property
    def least(self) -> Mapping[str, Any]:
        """The win rate by the reward model that likes it least."""
        return min(self.win_rates, key=lambda rate: float(rate["value"]))

    def as_dict(self) -> dict[str, Any]:
        return {
            "arm": self.arm,
            "name": self.title,
            "policy_id": self.policy_id,
            "win_rates": [dict(rate) for rate in self.win_rates],
            "least": self.least["value"],
            "breaks": list(self.breaks),
        }


def broken_rules(figures: Mapping[str, Any], of_sft: Mapping[str, Any], settings: GateSettings) -> list[str]:
    """Names of the gate's rules that a policy's responses break (:func:`report.policy_figures` of both)."""
    report = {"policies": {POLICY: figures, SFT: of_sft}}
    verdicts = [rule(report, settings) for rule in OF_RESPONSES]
    return [verdict.rule for verdict in verdicts if verdict is not None and verdict.outcome == "fail"]


def choose(contenders: Sequence[Contender]) -> Contender:
    """Of those that keep the rules, or of all where none does, the one with the highest least win rate; the first of
    equals.

    A policy that learned to exploit the errors of one reward model pleases that one alone, so what counts is the win
    rate by the model that likes the policy least: worst-case optimisation of an ensemble (Coste et al. 2024, section
    3.2), applied to a choice. The figure of the arm that is chosen is the largest of several and so too high by chance
    (the winner's curse): it chooses, on prompts of its own, and is never what the gate judges by.
    """
    return max(_eligible(contenders), key=lambda one: float(one.least["value"]))


def why_chosen(chosen: Contender, contenders: Sequence[Contender], prompts: int) -> str:
    """The choice as a sentence."""
    equals = sum(one.least["value"] == chosen.least["value"] for one in _eligible(contenders))
    models = len(chosen.win_rates)
    has = "it has" if equals == 1 else f"it is the first of {equals} with"
    by = "by the reward model" if models == 1 else f"by the one of {models} reward models that likes it least"
    return (
        f"{chosen.title}'s policy is judged: of {_among(contenders)}, {has} the highest win rate "
        f"against the champion {by}, {chosen.least['value']:.1%} on {prompts:,} validation prompts."
    )


def _eligible(contenders: Sequence[Contender]) -> Sequence[Contender]:
    """Those that keep the rules, or all where none does."""
    return [one for one in contenders if not one.breaks] or contenders


def _among(contenders: Sequence[Contender]) -> str:
    """Which policies the chosen one was compared with."""
    keeping, number = sum(not one.breaks for one in contenders), len(contenders)
    if keeping == number:
        return f"{number} policies, which all keep the gate's rules of a response"
    if keeping == 0:
        return f"{number} policies, none of which keeps the gate's rules of a response"
    return f"the {keeping} of {number} policies that keep the gate's rules of a response"
