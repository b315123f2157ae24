"""The candidate of a round: the policy that the gate judges, people compare, and `promotion` may make the champion."""

from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.arm_settings.release import BEST
from rlhf_dagster.config.arms import TRAINED, Arm
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder

CHOICE = "policy_choice"
"""The asset that chooses an arm, with `release.arm: best`."""


@dataclass(frozen=True)
class Candidate:
    """A policy, and the arm that has trained it."""

    arm: Arm
    policy: Checkpoint


def policy_assets(config: LoopConfig) -> list[str]:
    """The assets that the policies of a round are made by, and the choice among them where there is one."""
    choice = [CHOICE] if config.release.arm == BEST else []
    return [*(arm.asset for arm in config.trained_arms()), *choice]


def round_candidate(loop: LoopFolder, round_key: str) -> Candidate:
    """The policy of the arm that `release.arm` names, or of the one that was chosen.

    Raises UserError where it is not made yet, or where another policy of its arm was chosen than there is now.
    """
    named = loop.config.release.arm
    if named != BEST:
        return Candidate(TRAINED[named], arm_policy(loop, TRAINED[named], round_key))
    choice = round_choice(loop, round_key)
    if choice is None:
        raise UserError(f"`release.arm` is best and {round_key} has no {CHOICE} yet; materialise it first.")
    arm = TRAINED[choice["arm"]]
    found = arm_policy(loop, arm, round_key)
    if found.model_id != choice["policy_id"]:
        raise UserError(
            f"{CHOICE} of {round_key} has chosen {choice['policy_id']}, and {arm.asset} is {found.model_id} now; make "
            f"{CHOICE} again first."
        )
    return Candidate(arm, found)


def round_choice(loop: LoopFolder, round_key: str) -> dict[str, Any] | None:
    """What was chosen in a round; None without a choice, or where `release.arm` names an arm."""
    return loop.json(CHOICE, round_key) if loop.config.release.arm == BEST else None


def arm_policy(loop: LoopFolder, arm: Arm, round_key: str) -> Checkpoint:
    """The policy that an arm has trained in a round; raises UserError where its asset is not materialised yet."""
    found = loop.checkpoint(arm.asset, round_key)
    if found is None:
        raise UserError(f"The loop trains {arm.title} and {round_key} has no {arm.asset} yet; materialise it first.")
    return found


def evaluated_policy(loop: LoopFolder, round_key: str, policy_id: str) -> Checkpoint | None:
    """The policy of a round that its report is about, whichever arm has made it; None where it was made again since."""
    pointed = (loop.checkpoint(arm.asset, round_key) for arm in TRAINED.values())
    return next((found for found in pointed if found and found.model_id == policy_id), None)
