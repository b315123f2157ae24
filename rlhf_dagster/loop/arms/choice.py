"""`release.arm: best`: the arm whose policy is judged, chosen on prompts that nothing else is measured on."""

from typing import Any

import pandas as pd

from rlhf_dagster.config.arms import Arm
from rlhf_dagster.evaluation.choice import Contender, broken_rules, choose, why_chosen
from rlhf_dagster.evaluation.report import jsonable, policy_figures
from rlhf_dagster.evaluation.reward_drift import drift_scores
from rlhf_dagster.evaluation.samples import Scores, responses_by_role
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, REWARD_MODEL, SFT, win_rate
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import arm_policy
from rlhf_dagster.loop.evaluation import role_scores
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.splits import require_prompts
from rlhf_dagster.loop.halves import half_checkpoints
from rlhf_dagster.loop.sampling import sample_roles


def choose_policy(
    loop: LoopFolder,
    manifest: dict[str, str],
    *,
    sft: Checkpoint,
    reward_model: Checkpoint,
    halves: dict[str, Any],
    prompts: pd.DataFrame,
) -> dict[str, Any]:
    """The arm that the round's evaluation is about, why, and the figures of all; only what JSON can hold.

    Every promotable arm, SFT and the behaviour policy answer the same prompts of the split `validation`. The rule is
    :func:`~rlhf_dagster.evaluation.choice.choose`. Raises UserError where an arm's policy is not there yet, or
    the split is empty.
    """
    require_prompts(loop.config, prompts)
    arms, round_key = loop.config.promotable_arms(), manifest["round"]
    policies = {arm.name: arm_policy(loop, arm, round_key) for arm in arms}
    held_out, most = prompts[prompts["split"] == "validation"], loop.config.release.prompts
    frame = sample_roles(loop, manifest, policies, sft, held_out, most, "choice")
    scores = _scores(loop, frame, reward_model, halves, [*policies, SFT, BEHAVIOUR])
    found = [_contender(loop, arm, frame, scores) for arm in arms]
    chosen, asked = choose(found), int(frame["prompt_id"].nunique())
    return jsonable(
        {
            "round": round_key,
            "arm": chosen.arm,
            "policy_id": chosen.policy_id,
            "behaviour_policy": manifest["behaviour_policy"],
            "prompts": asked,
            "reason": why_chosen(chosen, found, asked),
            "arms": [one.as_dict() for one in found],
        }
    )


def _scores(
    loop: LoopFolder, frame: pd.DataFrame, reward_model: Checkpoint, halves: dict[str, Any], roles: list[str]
) -> Scores:
    """Scores of the round's reward model, and of those trained on halves of the labels where there are any."""
    models = half_checkpoints(loop, halves)
    whole = role_scores(loop, frame, reward_model, roles)
    if not models:
        return {REWARD_MODEL: whole}
    return drift_scores(whole, [role_scores(loop, frame, model, roles) for model in models])


def _contender(loop: LoopFolder, arm: Arm, frame: pd.DataFrame, scores: Scores) -> Contender:
    rows = responses_by_role(frame, (arm.name, SFT))
    figures = {role: policy_figures("", rows[role], scores, role) for role in rows}
    rates = [
        win_rate(given[arm.name], given[BEHAVIOUR], judge=judge, against=BEHAVIOUR) for judge, given in scores.items()
    ]
    return Contender(
        arm.name,
        arm.title,
        str(rows[arm.name]["policy_id"].iloc[0]),
        [rate.as_dict() for rate in rates],
        broken_rules(figures[arm.name], figures[SFT], loop.config.gate),
    )
