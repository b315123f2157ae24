"""Group `release`: which policy the next round samples from."""

from typing import Any

import dagster as dg

from rlhf_dagster.assets.define import JSON, after_policies
from rlhf_dagster.assets.metadata import as_list, markdown_table
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.gate import alarm_names
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.promotion import promote_round
from rlhf_dagster.loop.reporting.standing import refresh_reports
from rlhf_dagster.loop.upkeep.retention import remove_unneeded


# Of the reward model and the labels it reads whether they are still those that the policy has learned from.
@after_policies("release", deps=["human_evaluation", "reward_model", "preference_dataset"], **JSON)
def promotion(
    context: dg.AssetExecutionContext,
    loop: dg.ResourceParam[LoopFolder],
    eval_report: dict[str, Any],
) -> dg.MaterializeResult[dict[str, Any]]:
    """Moves the champion to this round's policy where the gate passes, and says why not where it does not.

    It asks the gate itself, so that running it alone after a failed check promotes nothing. `alarms` names the rules
    that stand in the way, `reports` the rounds whose reports now begin with what has become of their policies. With
    `gate.approval` a policy that passes waits for `rlhf promote`.
    """
    policy = round_candidate(loop, context.partition_key).policy
    # No input of this asset: after a failed check, which a person may overrule, nobody was asked to judge.
    human = loop.json("human_evaluation", context.partition_key)
    decision = promote_round(loop, context.partition_key, policy, eval_report, human)
    reports = refresh_reports(loop, {context.partition_key: decision})
    removed = _remove_unneeded(loop)
    shown = {key: decision[key] for key in ("promoted", "outcome", "policy", "champion")}
    return dg.MaterializeResult(
        value=decision,
        metadata=shown
        | {
            "alarms": ", ".join(alarm_names(decision["rules"])) or "none",
            "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decision["reasons"])),
            "rules": markdown_table(decision["rules"]),
            "reports": ", ".join(reports),
            **removed,
        },
    )


def _remove_unneeded(loop: LoopFolder) -> dict[str, Any]:
    """What of the models was removed, as metadata. The decision stands also where they could not be."""
    try:
        removed = remove_unneeded(loop)
    except UserError as error:
        return {"warnings": as_list([f"Models that nothing needs could not be removed: {error}"])}
    if not removed:
        return {}
    return {
        "removed_models": len(removed),
        "removed": as_list([f"{one.model_id} ({one.size / 1e6:,.1f} MB)" for one in removed]),
    }
