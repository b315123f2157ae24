"""`rlhf promote` and `rlhf rollback`: the champion moved by hand, on record."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_dagster.errors import UserError

if TYPE_CHECKING:
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.loop.folder import LoopFolder


def promote_policy(folder: Path, round_key: str | None, by: str, reason: str, anyway: bool) -> None:
    """Approve a round's policy and run the asset `promotion`, which makes it the champion.

    Raises UserError with the gate's reasons where it does not pass, unless ``anyway``.
    """
    from rlhf_dagster.automation.instance import require_idle
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_loop

    loop = open_loop(folder)
    runner = LoopRunner.open(loop)
    key = round_key or _newest_report(loop)
    policy = _require_promotable(loop, key, anyway)
    require_idle(runner.instance, loop)
    loop.registry.approve(policy, key, by, reason, anyway=anyway)
    decision = _run_promotion(runner, key)
    if not decision["promoted"]:
        raise UserError(f"{policy} is not promoted: {' '.join(decision['reasons'])}")
    print(f"{policy} of {key} is the champion: by {by}, {reason}")
    for sentence in _against(decision):
        print(f"  against the gate: {sentence}")
    print(f"The next round samples from it. The way back: rlhf rollback {loop.option} --reason WHY")


def roll_back(folder: Path, policy: str | None, by: str, reason: str) -> None:
    """Make an earlier champion, the one before by default, the champion again."""
    from rlhf_dagster.cli.policies.publish import still_published
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.loop.reporting.standing import refresh_reports

    if not (by.strip() and reason.strip()):
        raise UserError("A rollback stays on record: give your name and a reason.")
    loop = open_loop(folder)
    before, target = loop.registry.champion(), policy or loop.registry.previous_champion()
    if before is None or target is None:
        raise UserError("There is no earlier champion to go back to; `rlhf round status` shows what was promoted.")
    folder = loop.policy(target).folder  # looked at before it is recorded
    moved = loop.registry.rollback(target, by, reason)
    if not moved.promoted:
        raise UserError(moved.reason)
    refresh_reports(loop)
    print(f"old champion  {before.policy_id}")
    print(f"new champion  {target}  ({folder})")
    print("Rounds collected from now on sample from it; earlier ones keep the policy that they sampled from.")
    for sentence in still_published(loop, before.policy_id):
        print(sentence)


def _newest_report(loop: "LoopFolder") -> str:
    """The newest round whose policy has been evaluated."""
    evaluated = loop.rounds_with("eval_report")
    if not evaluated:
        raise UserError("No round has an evaluated policy yet; run `rlhf run train_round` first.")
    return evaluated[-1]


def _require_promotable(loop: "LoopFolder", key: str, anyway: bool) -> str:
    """The id of the round's policy; raises UserError where its promotion would be refused."""
    from rlhf_dagster.loop.guards.deleted_rounds import require_not_deleted
    from rlhf_dagster.loop.promotion import consider, require_current

    require_not_deleted(loop, key)
    report = loop.json("eval_report", key)
    if report is None:
        raise UserError(f"{key} has no evaluated policy; run `rlhf run train_round --round {key}` first.")
    policy = str(report["policy_id"])
    if refusal := loop.registry.refusal(policy, key):
        raise UserError(f"{policy} cannot be promoted: {refusal}")
    found = consider(loop, report, loop.json("human_evaluation", key))
    if not (found.passed or anyway):
        raise UserError(f"The gate says {found.outcome}: {' '.join(found.reasons)} --anyway promotes against it.")
    require_current(loop, key, policy)
    return policy


def _run_promotion(runner: "LoopRunner", key: str) -> dict[str, Any]:
    outcome = runner.run("release_round", key, ["promotion"])
    if not outcome.success:
        raise UserError(f"The approval is on record, and {outcome.failed_asset or 'the run'} failed: {outcome.failure}")
    return runner.loop.json("promotion", key) or {}


def _against(decision: dict[str, Any]) -> list[str]:
    """What the gate has against a policy that was promoted."""
    return decision["reasons"][1:] if decision["outcome"] != "pass" else []
