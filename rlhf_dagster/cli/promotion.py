"""`rlhf promote`, `rlhf refuse` and `rlhf rollback`: a person's word on the champion, on record."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_dagster.cli.output import sentence_of
from rlhf_dagster.errors import UserError

if TYPE_CHECKING:
    from rlhf_dagster.cli.runner import LoopRunner


def promote_policy(folder: Path, round_key: str | None, by: str, reason: str, anyway: bool) -> None:
    """Approve a round's policy and run the asset `promotion`, which makes it the champion.

    Raises UserError with the gate's reasons where it does not pass, unless ``anyway``.
    """
    from rlhf_dagster.loop.interventions.candidates import approve_candidate, newest_candidate

    runner = _idle_runner(folder)
    loop = runner.loop
    key = round_key or newest_candidate(loop)
    policy = approve_candidate(loop, key, by, reason, anyway)
    decision = _run_promotion(runner, key, "approval")
    if not decision["promoted"]:
        raise UserError(f"{policy} is not promoted: {' '.join(decision['reasons'])}")
    print(f"{policy} of {key} is the champion: by {by}, {reason}")
    for sentence in _against(decision):
        print(f"  against the gate: {sentence}")
    print(f"The next round samples from it. The way back: rlhf rollback {loop.option} --reason WHY")


def refuse_policy(folder: Path, round_key: str | None, by: str, reason: str) -> None:
    """Refuse a round's policy, whatever the gate says, and run the asset `promotion`, which keeps the champion."""
    from rlhf_dagster.loop.interventions.candidates import newest_candidate, refuse_candidate

    runner = _idle_runner(folder)
    loop = runner.loop
    key = round_key or newest_candidate(loop)
    policy = refuse_candidate(loop, key, by, reason)
    decision = _run_promotion(runner, key, "refusal")
    print(f"{policy} of {key} is refused: by {by}, {reason}")
    print(f"{decision['champion']} stays the champion. More labels make another policy of the round.")


def roll_back(folder: Path, policy: str | None, by: str, reason: str) -> None:
    """Make an earlier champion, the one before by default, the champion again."""
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.common.processes import begun_at
    from rlhf_dagster.loop.interventions.champions import restore_champion

    done = restore_champion(open_loop(folder), policy, by, reason, begun_at())
    print(f"old champion  {done.before}")
    print(f"new champion  {done.champion}  ({done.checkpoint})")
    print("Rounds collected from now on sample from it; earlier ones keep the policy that they sampled from.")
    for sentence in done.published:
        print(sentence)


def _idle_runner(folder: Path) -> "LoopRunner":
    from rlhf_dagster.automation.instance import require_idle
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_loop

    runner = LoopRunner.open(open_loop(folder))
    require_idle(runner.instance, runner.loop)
    return runner


def _run_promotion(runner: "LoopRunner", key: str, word: str) -> dict[str, Any]:
    outcome = runner.run("release_round", key, ["promotion"])
    if not outcome.success:
        where, why = outcome.failed_asset or "the run", sentence_of(outcome.failure)
        raise UserError(f"The {word} is on record, and {where} failed: {why}")
    return runner.loop.json("promotion", key) or {}


def _against(decision: dict[str, Any]) -> list[str]:
    """What the gate has against a policy that was promoted."""
    return decision["reasons"][1:] if decision["outcome"] != "pass" else []
