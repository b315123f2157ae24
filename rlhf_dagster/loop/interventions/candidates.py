"""A person's word on a round's policy: it may become the champion, or it may not."""

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import require_not_deleted
from rlhf_dagster.loop.promotion import consider, require_current


def newest_candidate(loop: LoopFolder) -> str:
    """Key of the newest round whose policy has been evaluated; raises UserError before there is one."""
    evaluated = loop.rounds_with("eval_report")
    if not evaluated:
        raise UserError(f"No round has an evaluated policy yet; run `rlhf run train_round {loop.option}` first.")
    return evaluated[-1]


def approve_candidate(loop: LoopFolder, round_key: str, by: str, reason: str, anyway: bool = False) -> str:
    """Put on record that a round's policy may become the champion, and return its id; promotes nothing yet.

    Raises UserError where the policy could not be promoted, or where the gate does not pass it, unless ``anyway``.
    """
    policy = _policy_of(loop, round_key)
    if refusal := loop.registry.refusal(policy, round_key):
        raise UserError(f"{policy} cannot be promoted: {refusal}")
    report = loop.json("eval_report", round_key) or {}
    found = consider(loop, report, loop.json("human_evaluation", round_key))
    if not (found.passed or anyway):
        raise UserError(
            f"The gate says {found.outcome}: {' '.join(found.reasons)} --anyway (in the UI, `anyway: true`) promotes "
            "against it."
        )
    require_current(loop, round_key, policy)
    loop.registry.approve(policy, round_key, by, reason, anyway=anyway)
    return policy


def refuse_candidate(loop: LoopFolder, round_key: str, by: str, reason: str) -> str:
    """Put on record that a round's policy may not become the champion, and return its id; decides nothing yet.

    Raises UserError where that is decided already: it was champion, or it was refused.
    """
    policy = _policy_of(loop, round_key)
    if any(entry.policy_id == policy for entry in loop.registry.history()):
        raise UserError(f"{policy} was promoted, so it cannot be refused; a rollback takes it down.")
    if refusal := loop.registry.refusal(policy, round_key):
        raise UserError(f"{policy} cannot be promoted anyway: {refusal}")
    decision = loop.decision(round_key)
    early = decide(loop, loop.json("eval_report", round_key) or {}, None)
    if decision and decision["outcome"] == "fail":
        raise UserError(f"{policy} of {round_key} is refused already: {' '.join(decision['reasons'])}")
    if not early.passed:
        raise UserError(f"{policy} of {round_key} is refused already: {' '.join(early.reasons)}")
    loop.registry.refuse(policy, round_key, by, reason)
    return policy


def _policy_of(loop: LoopFolder, round_key: str) -> str:
    """The id of the policy that a round's report is about."""
    require_not_deleted(loop, round_key)
    report = loop.json("eval_report", round_key)
    if report is None:
        raise UserError(
            f"{round_key} has no evaluated policy; run `rlhf run train_round --round {round_key} {loop.option}` first."
        )
    return str(report["policy_id"])
