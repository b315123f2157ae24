"""Group `release`: which policy the next round samples from."""

from typing import Any

import dagster as dg

from rlhf_dagster.assets.backfill_order import wait_for_older_rounds
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
    `gate.approval` a policy that passes waits for the job `approve`, or for `rlhf promote`.
    """
    wait_for_older_rounds(context)
    return decide_round(loop, context.partition_key, eval_report)


def decide_round(loop: LoopFolder, key: str, report: dict[str, Any]) -> dg.MaterializeResult[dict[str, Any]]:
    """Decide on the policy that a round's report is about, and have the reports say so."""
    # People's judgments are no input of the asset: after a failed check, which a person may overrule, nobody was asked.
    decision = promote_round(loop, key, round_candidate(loop, key).policy, report, loop.json("human_evaluation", key))
    reports = refresh_reports(loop, {key: decision})
    shown = {name: decision[name] for name in ("promoted", "outcome", "policy", "champion")}
    return dg.MaterializeResult(
        value=decision,
        metadata=shown
        | {
            "alarms": ", ".join(alarm_names(decision["rules"])) or "none",
            "reasons": as_list(decision["reasons"]),
            "rules": markdown_table(decision["rules"]),
            "reports": ", ".join(reports),
            **_remove_unneeded(loop),
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
