"""Moving the champion."""

from typing import Any

from rlhf_dagster.loop_folder import LoopFolder
from rlhf_dagster.models import Checkpoint
from rlhf_dagster.stages.evaluation import decide


def promote_round(
    loop: LoopFolder, round_key: str, policy: Checkpoint, report: dict[str, Any], human: dict[str, Any]
) -> dict[str, Any]:
    """Ask the gate about a round's own report and judgments, move the champion if it passes, and return the decision.

    Promotion only moves forward: running it again for a round older than the champion's changes nothing.
    """
    decision = decide(loop, report, human)
    promoted, reasons = decision.outcome == "pass", list(decision.reasons)
    if promoted:
        moved = loop.registry.promote(policy.model_id, round_key, by="gate", reason="every rule of the gate is met")
        promoted, reasons = moved.promoted, reasons if moved.promoted else [moved.reason]
    champion = loop.registry.champion()
    return {
        "round": round_key,
        "policy": policy.model_id,
        "promoted": promoted,
        "outcome": decision.outcome,
        "reasons": reasons,
        "champion": champion.policy_id if champion else "",
    }
