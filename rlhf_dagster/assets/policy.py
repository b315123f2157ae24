"""Group `policy`: the policies that learn from the reward model."""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.define import JSON, MODEL, LoopAsset, after_policies, loop_asset, stage_progress
from rlhf_dagster.assets.launch import for_this_run, launch_config
from rlhf_dagster.assets.metadata import model_result
from rlhf_dagster.assets.report_metadata import choice_table
from rlhf_dagster.config.arm_settings.best_of_n_sft import BestOfNSftSettings
from rlhf_dagster.config.arm_settings.group_advantages import GrpoSettings, RlooSettings
from rlhf_dagster.config.arms import BEST_OF_N_SFT, DPO, GRPO, PPO, RLOO, Arm
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import DpoSettings, PpoSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.arms.choice import choose_policy
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.chance import require_above_chance
from rlhf_dagster.loop.trainings.best_of_n_sft import make_best_of_n_sft_policy
from rlhf_dagster.loop.trainings.dpo import make_dpo_policy
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.loop.trainings.ppo import make_ppo_policy
from rlhf_dagster.resources.compute import Compute
from rlhf_dagster.training.texts.cuts import COUNTED

COMPARED_BY_ROUND = (
    "reward",
    "kl",
    "kl_coef",
    "entropy",
    "explained_variance",
    "distinct_responses",
    "ratio_first",
    "validation_reward",
    "validation_kl",
)
"""The metrics that the UI plots by round, where a run has them. The other metrics describe an update, not a round."""
_DpoLaunch = launch_config(DpoSettings)
_BestOfNSftLaunch = launch_config(BestOfNSftSettings)


def _policy_by_reward(arm: Arm, launch: type[dg.Config], about: str) -> LoopAsset:
    """The asset of an arm that PPO's loop trains against a reward; ``about`` is what it says of itself."""

    def policy(
        context: dg.AssetExecutionContext,
        config: launch,  # type: ignore[valid-type]
        loop: dg.ResourceParam[LoopFolder],
        compute: Compute,
        round_manifest: dict[str, str],
        sft_checkpoint: Checkpoint,
        reward_model: Checkpoint,
        reward_model_accuracy: dict[str, Any],
        prompts: Path,
        pretraining_text: Path,
        preference_dataset: Path,
    ) -> dg.MaterializeResult[Checkpoint]:
        require_above_chance(loop, context.partition_key, reward_model_accuracy)
        result = make_ppo_policy(
            compute.on(loop),
            context.partition_key,
            for_this_run(getattr(loop.config, arm.name), config),
            sft=sft_checkpoint,
            behaviour_policy=round_manifest["behaviour_policy"],
            reward_model=reward_model,
            prompts=prompts,
            pretraining_text=pretraining_text,
            preferences=preference_dataset,
            progress=stage_progress(context),
            arm=arm,
        )
        return model_result(result, _shown(result), behaviour_policy=round_manifest["behaviour_policy"])

    policy.__name__, policy.__doc__ = arm.asset, about
    return loop_asset("policy", by_round=True, gpu=True, **MODEL)(policy)


ppo_policy = _policy_by_reward(
    PPO,
    launch_config(PpoSettings),
    """The policy after PPO against this round's reward model, held to the SFT policy by a KL reward.

    The numbers are means over the last updates: `reward` is the reward model's score (the SFT policy has mean 0 and
    deviation 1, unless demonstrations normalise scores), `kl` the sequence KL to SFT in nats, `entropy` that of a token
    in nats, `kl_coef` the weight of the KL reward, `explained_variance` how well the value head predicts the returns
    (1 is best). `ratio_first`, the probability ratio before an update has changed anything, must be 1 (with
    `rollouts_ahead: 1`, in the first update alone).
    `validation_reward` and `validation_kl` are measured on held-out prompts, where `ppo.validate_every` is set.
    Where the setting `reward` names other rewards, `reward` is their sum, and `reward_from_KIND` what each adds to it.
    Run alone too, it does not start on a reward model that is not known to be better than guessing.
    """,
)
rloo_policy = _policy_by_reward(
    RLOO,
    launch_config(RlooSettings),
    """The policy of RLOO against this round's reward model; trained where `arms` or `release.arm` asks for it.

    As PPO's, and its numbers are those of PPO's, but without a value head: the baseline of a reward is the mean reward
    of the other responses to the prompt (Ahmadian et al. 2024).
    """,
)
grpo_policy = _policy_by_reward(
    GRPO,
    launch_config(GrpoSettings),
    """The policy of GRPO against this round's reward model; trained where `arms` or `release.arm` asks for it.

    As PPO's, and its numbers are those of PPO's, but without a value head: advantages are the rewards of a prompt's
    responses, scaled to mean 0 and deviation 1 (Shao et al. 2024).
    """,
)


@loop_asset("policy", by_round=True, gpu=True, **MODEL)
def dpo_policy(
    context: dg.AssetExecutionContext,
    config: _DpoLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    sft_checkpoint: Checkpoint,
    preference_dataset: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """The policy after DPO on all labels so far, without a reward model; trained by `train_round` where `arms` or
    `release.arm` asks for it.

    `accuracy` is the share of pairs whose preferred response has become the likelier one against SFT, `reward_margin`
    by how many nats, times `dpo.beta`. It is reported beside the policy of `release.arm`, unless it is that one.
    """
    return _dpo(context, config, loop, compute, sft_checkpoint, preference_dataset, None)


@loop_asset("policy", by_round=True, gpu=True, name=DPO.asset, **MODEL)
def dpo_policy_of_feedback(
    context: dg.AssetExecutionContext,
    config: _DpoLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    sft_checkpoint: Checkpoint,
    preference_dataset: Path,
    feedback: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """The policy after KTO on what people liked and did not, in labels and in feedback, without a reward model.

    `accuracy` is the share of responses that stand on the right side of the reference point: those that were liked
    have become likelier against SFT by more than responses to other prompts, those that were not by less.
    `reward_margin` says by how many nats, times `dpo.beta`.
    """
    return _dpo(context, config, loop, compute, sft_checkpoint, preference_dataset, feedback)


def _dpo(
    context: dg.AssetExecutionContext,
    config: Any,
    loop: LoopFolder,
    compute: Compute,
    sft: Checkpoint,
    preferences: Path,
    feedback: Path | None,
) -> dg.MaterializeResult[Checkpoint]:
    result = make_dpo_policy(
        compute.on(loop),
        context.partition_key,
        for_this_run(loop.config.dpo, config),
        sft=sft,
        preferences=preferences,
        feedback=feedback,
        progress=stage_progress(context),
    )
    return model_result(result)


@loop_asset("policy", by_round=True, gpu=True, **MODEL)
def best_of_n_sft_policy(
    context: dg.AssetExecutionContext,
    config: _BestOfNSftLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    round_manifest: dict[str, str],
    sft_checkpoint: Checkpoint,
    reward_model: Checkpoint,
    reward_model_accuracy: dict[str, Any],
    prompts: Path,
    preference_dataset: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """The policy after SFT on the best of its own samples; trained where `arms` or `release.arm` asks for it.

    Rejection sampling: for each of some training prompts, the one of n samples that the reward model scores highest.
    `reward_of_best` is the mean score of what is trained on, `reward_of_samples` that of all samples.
    """
    require_above_chance(loop, context.partition_key, reward_model_accuracy)
    result = make_best_of_n_sft_policy(
        compute.on(loop),
        context.partition_key,
        for_this_run(loop.config.best_of_n_sft, config),
        sft=sft_checkpoint,
        behaviour_policy=round_manifest["behaviour_policy"],
        reward_model=reward_model,
        prompts=prompts,
        preferences=preference_dataset,
        progress=stage_progress(context),
    )
    return model_result(result, behaviour_policy=round_manifest["behaviour_policy"])


ARM_ASSETS = {
    PPO: ppo_policy,
    RLOO: rloo_policy,
    GRPO: grpo_policy,
    DPO: dpo_policy,
    BEST_OF_N_SFT: best_of_n_sft_policy,
}
"""By arm, the asset that is its policy."""


@after_policies("policy", gpu=True, **JSON)
def policy_choice(
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    round_manifest: dict[str, str],
    sft_checkpoint: Checkpoint,
    reward_model: Checkpoint,
    reward_model_halves: dict[str, Any],
    prompts: pd.DataFrame,
) -> dg.MaterializeResult[dict[str, Any]]:
    """Which arm's policy is judged on test prompts and may be promoted; made where `release.arm` is `best`.

    Chosen on prompts of the split `validation`: of the policies that keep the gate's rules of a response, the one whose
    win rate against the champion is the highest, by the reward model (of all labels, or of a half) that likes the
    policy least. That figure is the best of several, and so too high; the gate judges on other prompts.
    """
    choice = choose_policy(
        compute.on(loop),
        round_manifest,
        sft=sft_checkpoint,
        reward_model=reward_model,
        halves=reward_model_halves,
        prompts=prompts,
    )
    shown = {key: choice[key] for key in ("arm", "policy_id", "behaviour_policy", "prompts", "reason")}
    return dg.MaterializeResult(value=choice, metadata=shown | {"arms": choice_table(choice["arms"])})


def _shown(result: StageResult) -> list[str]:
    """The metrics that the UI shows of a policy that PPO has trained."""
    shown = [name for name in (*COMPARED_BY_ROUND, *COUNTED) if name in result.metrics]
    return shown + [name for name in result.metrics if name.startswith("reward_from_")]


def arm_asset(arm: Arm, config: LoopConfig) -> LoopAsset:
    """The asset that is an arm's policy in a loop with this config."""
    return dpo_policy_of_feedback if arm is DPO and config.learns_from_feedback else ARM_ASSETS[arm]
