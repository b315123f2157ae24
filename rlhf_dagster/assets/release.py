"""Group `release`: which policy the next round samples from."""

from typing import Any

import dagster as dg

from rlhf_dagster.assets.define import JSON, loop_asset
from rlhf_dagster.loop_folder import LoopFolder
from rlhf_dagster.models import Checkpoint
from rlhf_dagster.stages.promotion import promote_round


@loop_asset("release", by_round=True, **JSON)
def promotion(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    ppo_policy: Checkpoint,
    eval_report: dict[str, Any],
    human_evaluation: dict[str, Any],
) -> dg.MaterializeResult[dict[str, Any]]:
    """Moves the champion to this round's policy where the gate passes, and says why not where it does not.

    It asks the gate itself, so that running it alone after a failed check promotes nothing.
    """
    decision = promote_round(loop, context.partition_key, ppo_policy, eval_report, human_evaluation)
    reasons = "\n".join(f"- {reason}" for reason in decision["reasons"]) or "every rule of the gate is met"
    metadata = {key: decision[key] for key in ("promoted", "outcome", "policy", "champion")}
    return dg.MaterializeResult(value=decision, metadata=metadata | {"reasons": dg.MetadataValue.md(reasons)})
