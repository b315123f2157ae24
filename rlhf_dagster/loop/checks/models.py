"""Checks of a round's reward model, and of what it says about the policy."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.evaluation.rules import drift_rule
from rlhf_dagster.loop.checks.outcome import CheckOutcome, NotMadeYet, noticed, well
from rlhf_dagster.loop.folder import LoopFolder

_SPLIT = "validation"


def is_calibrated(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether what the reward model takes for likely comes true as often as it says.

    On comparisons that it never saw. It warns where that is off by more than `checks.max_calibration_error`, and not by
    chance.
    """
    accuracy, most = _json(loop, "reward_model_accuracy", round_key), loop.config.checks.max_calibration_error
    error = accuracy["splits"].get(_SPLIT, {}).get("calibration_error")
    if error is None:
        return well("No label that names a best response is in the validation split, so that nothing tells.")
    off = _off(accuracy["calibration"].get(_SPLIT, []))
    said = f"Predicted probabilities are off by {error:.1%} on average"
    if most is None or error <= most or not off:
        why = "" if most is None or error <= most else ", which may be chance with so few labels"
        return well(f"{said}{why}.", calibration_error=error)
    worst = max(off, key=lambda one: abs(one["confidence"] - one["accuracy"]["value"]))
    came_true = worst["accuracy"]
    return noticed(
        f"{said}, more than {most:.0%} (`checks.max_calibration_error`): of predictions with {worst['confidence']:.0%} "
        f"{came_true['value']:.0%} came true ({came_true['low']:.0%} to {came_true['high']:.0%}).",
        calibration_error=error,
    )


def reward_models_agree(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether reward models trained on halves of the labels see the same gain in the policy as the one on all of them.

    Where they drift apart, the policy exploits what one of them has learned from its labels alone.
    """
    report = _json(loop, "eval_report", round_key)
    verdict = drift_rule(report, loop.config.gate)
    if verdict is None:
        return well("`gate.max_reward_drift` is switched off.")
    figures = {"reward_drift": (report.get("reward_drift") or {}).get("value")}
    return CheckOutcome(verdict.outcome != "fail", verdict.sentence, figures)


def _off(bins: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The bins whose interval of what came true does not hold what was predicted."""
    return [one for one in bins if not one["accuracy"]["low"] <= one["confidence"] <= one["accuracy"]["high"]]


def _json(loop: LoopFolder, asset: str, round_key: str) -> dict[str, Any]:
    found = loop.json(asset, round_key)
    if found is None:
        raise NotMadeYet(asset, round_key)
    return found
