"""Group `release`: which policy the next round samples from."""

from typing import Any

import dagster as dg

from rlhf_dagster.assets.define import JSON, loop_asset, markdown_table
from rlhf_dagster.evaluation.gate import alarm_names
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.promotion import promote_round


# Of the reward model and the labels it reads whether they are still those that the policy has learned from.
@loop_asset("release", by_round=True, deps=["human_evaluation", "reward_model", "preference_dataset"], **JSON)
def promotion(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    ppo_policy: Checkpoint,
    eval_report: dict[str, Any],
) -> dg.MaterializeResult[dict[str, Any]]:
    """Moves the champion to this round's policy where the gate passes, and says why not where it does not.

    It asks the gate itself, so that running it alone after a failed check promotes nothing. `alarms` names the rules
    that stand in the way. With `gate.approval` a policy that passes waits for `rlhf promote`.
    """
    # No input of this asset: after a failed check, which a person may overrule, nobody was asked to judge.
    human = loop.json("human_evaluation", context.partition_key)
    decision = promote_round(loop, context.partition_key, ppo_policy, eval_report, human)
    shown = {key: decision[key] for key in ("promoted", "outcome", "policy", "champion")}
    return dg.MaterializeResult(
        value=decision,
        metadata=shown
        | {
            "alarms": ", ".join(alarm_names(decision["rules"])) or "none",
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decision["reasons"])),
            "rules": markdown_table(decision["rules"]),
        },
    )
