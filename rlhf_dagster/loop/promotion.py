"""Moving the champion: by the gate, by a person who approves what passes it, or by one who overrules it; on record."""

from functools import partial
from typing import Any

from rlhf_dagster.config.arms import arm_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.gate import GateDecision, Outcome, decision_of, rules_as_dicts
from rlhf_dagster.evaluation.rules import Verdict
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.lineage.registry import GATE, ApprovalRecord, ChampionRecord
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder

CHAMPION_RULE, PERSON_RULE = "champion", "person"
"""What a decision asks for besides the gate's rules."""
AGAINST_THE_GATE = "against the gate: "
"""Begins the reason on record of a promotion that the gate does not let pass."""


def promote_round(
    loop: LoopFolder, round_key: str, policy: Checkpoint, report: dict[str, Any], human: dict[str, Any] | None
) -> dict[str, Any]:
    """Ask the gate about a round's own report and judgments, move the champion if it passes, and return the decision.

    Promotion only moves forward: running it again for a round older than the champion's changes nothing, and for the
    champion's own round it returns the same decision. A person's
    approval of exactly this policy promotes it where the gate passes, and against the gate where the approval says so.
    A person's refusal of it promotes nothing. The last word counts.

    Raises UserError where the policy would be promoted, and cannot be opened or is not the round's any more.
    """
    _require_report_of(policy.model_id, report)
    _refuse_other_arms(loop, policy.model_id)
    registry, decided = loop.registry, partial(_decision, loop, round_key, policy.model_id)
    refusal, approval = registry.refusal(policy.model_id, round_key), registry.last_word(policy.model_id)
    found = decide(loop, report, human or {}) if refusal else consider(loop, report, human)
    if approval and approval.refused and not refusal:
        return decided(_refused_by(found, approval), promoted=False)
    if not (found.passed or (approval and approval.anyway)):
        return decided(found, promoted=False)
    if refusal:
        # Whoever was interrupted after the promotion was on record ends with the decision that was not written.
        made = _own_promotion(loop, round_key, policy.model_id)
        again = _reasons(found, made.by, made.reason) if made else [refusal]
        return decided(found, promoted=_is_champion(loop, policy.model_id), reasons=again)
    if loop.config.gate.approval and approval is None:
        waits = [how_to_approve(loop, round_key), *found.reasons]
        return decided(found, promoted=False, outcome="waiting for approval", reasons=waits)
    require_current(loop, round_key, policy.model_id)
    by, reason = _by_whom(found, approval)
    moved = registry.promote(policy.model_id, round_key, by=by, reason=reason)
    if not moved.promoted:
        return decided(found, promoted=False, reasons=[moved.reason])
    return decided(found, promoted=True, reasons=_reasons(found, by, reason))


def require_current(loop: LoopFolder, round_key: str, policy_id: str) -> None:
    """Raise UserError where a policy cannot be opened, or has learned from other labels than its round has now.

    A round whose reward model or preference data set was made again has a policy of before until that is made again
    too: its report says nothing about what the round has become.
    """
    manifest = read_manifest(loop.policy(policy_id).folder)
    again = f"run `rlhf run train_round --round {round_key} {loop.option}`, which makes it again"
    reward_model = loop.checkpoint("reward_model", round_key)
    learned_from = manifest["parents"].get("reward_model", {}).get("digest")
    if reward_model and learned_from not in (None, reward_model.digest):
        raise UserError(f"{policy_id} learned from another reward model than {reward_model.model_id}; {again}.")
    snapshot = loop.table("preference_dataset", round_key)
    if snapshot is not None and manifest["dataset"] not in (None, snapshot_hash(snapshot)):
        raise UserError(f"{policy_id} learned from other labels than preference_dataset of {round_key} has; {again}.")


def _reasons(found: GateDecision, by: str, reason: str) -> list[str]:
    """Why a policy is promoted: a person's word, if it was a person, and the gate's rules."""
    return found.reasons if by == GATE else [f"Promoted by {by}: {reason}", *found.reasons]


def _own_promotion(loop: LoopFolder, round_key: str, policy_id: str) -> ChampionRecord | None:
    """The entry by which a round's policy became the champion, if that was the last change of all."""
    last = loop.registry.champion()
    is_own = last is not None and (last.policy_id, last.round_key, last.action) == (policy_id, round_key, "promotion")
    return last if is_own else None


def _is_champion(loop: LoopFolder, policy_id: str) -> bool:
    champion = loop.registry.champion()
    return champion is not None and champion.policy_id == policy_id


def consider(loop: LoopFolder, report: dict[str, Any], human: dict[str, Any] | None) -> GateDecision:
    """The gate, and one rule more: what the policy was judged against must still be the champion. Moves nothing."""
    found = decide(loop, report, human or {})
    champion, judged = loop.registry.champion(), report["behaviour_policy"]
    if champion is None or champion.policy_id == judged:
        return found
    sentence = (
        f"The policy was judged against {judged}, and {champion.policy_id} has become the champion since; "
        "a later round is judged against it."
    )
    return decision_of([*found.rules, Verdict(CHAMPION_RULE, "fail", sentence)])


def how_to_approve(loop: LoopFolder, round_key: str) -> str:
    command = f'rlhf promote {loop.option} --round {round_key} --by NAME --reason "..."'
    return f"The gate passes, and a person must approve (in the UI: the job `{loop.names.own('approve')}`): {command}"


def _require_report_of(policy_id: str, report: dict[str, Any]) -> None:
    if report["policy_id"] != policy_id:
        raise UserError(f"The report is about {report['policy_id']}, not {policy_id}; make eval_report again first.")


def _refuse_other_arms(loop: LoopFolder, policy_id: str) -> None:
    """Raise UserError for a policy of an arm that `release.arm` does not let be promoted."""
    arm, config = arm_of(loop.registry.get(policy_id).kind), loop.config
    if arm is not None and arm not in config.promotable_arms():
        raise UserError(
            f"{policy_id} is a policy of {arm.title}, which is compared with the candidate, not promoted: "
            f"`release.arm` is {config.release.arm}."
        )


def _refused_by(found: GateDecision, word: ApprovalRecord) -> GateDecision:
    sentence = f"Refused by {word.by}: {word.reason}"
    return decision_of([Verdict(PERSON_RULE, "fail", sentence), *found.rules])


def _by_whom(found: GateDecision, approval: ApprovalRecord | None) -> tuple[str, str]:
    """Who promotes, and the reason on record."""
    if approval is None:
        return GATE, "every rule of the gate is met"
    return approval.by, approval.reason if found.passed else AGAINST_THE_GATE + approval.reason


def _decision(
    loop: LoopFolder,
    round_key: str,
    policy_id: str,
    found: GateDecision,
    *,
    promoted: bool,
    outcome: Outcome | None = None,
    reasons: list[str] | None = None,
) -> dict[str, Any]:
    champion = loop.registry.champion()
    return {
        "round": round_key,
        "policy": policy_id,
        "promoted": promoted,
        "outcome": outcome or found.outcome,
        "reasons": found.reasons if reasons is None else reasons,
        "champion": champion.policy_id if champion else "",
        "rules": rules_as_dicts(found.rules),
    }
