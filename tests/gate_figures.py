"""Figures of an evaluation as the gate reads them: those of a good policy, each to be replaced."""

from typing import Any

from rlhf_dagster.config.evaluation import GateSettings
from rlhf_dagster.evaluation.gate import GateDecision, gate
from rlhf_dagster.evaluation.win_rate import ANNOTATORS, GOLD_JUDGE, REWARD_MODEL

SFT = {"length": 20.0, "repetition": 0.03, "copied_trigrams": 0.3}


def rate(judge: str, low: Any = 0.6, n: Any = 512, value: Any = 0.7, against: str = "behaviour") -> dict[str, Any]:
    return {"judge": judge, "against": against, "value": value, "low": low, "high": 0.8, "n": n}


def report(
    *, perplexity: Any = 1.4, drift: Any = 0.02, sft: dict[str, Any] | None = None, **policy: Any
) -> dict[str, Any]:
    """A report; the keywords are figures of the policy but for ``perplexity``, ``drift`` and those of ``sft``."""
    figures = {"kl": {"value": 6.0}, "distinct": 0.99, "length": 24.0, "repetition": 0.05, "copied_trigrams": 0.35}
    return {
        "policy_id": "ppo",
        "behaviour_policy": "sft",
        "policies": {"policy": figures | policy, "sft": SFT | (sft or {})},
        "win_rates": [rate(REWARD_MODEL), rate(GOLD_JUDGE, low=0.55)],
        "alignment_tax": {"value": perplexity, "low": 1.3, "high": 1.5, "n": 256},
        "reward_drift": reward_drift(drift, drift - 0.05 if isinstance(drift, float) else None),
    }


def reward_drift(value: Any, low: Any, high: Any = 0.9) -> dict[str, Any]:
    between = ["reward model", "half B"]
    rates = [rate(judge, against="sft", value=share) for judge, share in zip(between, (0.9, 0.6), strict=True)]
    return {"value": value, "low": low, "high": high, "n": 512, "between": between, "win_rates": rates}


def people(**changes: Any) -> dict[str, Any]:
    return {"win_rates": [rate(ANNOTATORS, **({"n": 150} | changes))]}


def decide(
    report: dict[str, Any],
    human: dict[str, Any] | None = None,
    *,
    required: bool = False,
    settings: GateSettings | None = None,
) -> GateDecision:
    return gate(report, human, settings or GateSettings(), human_required=required)
