"""Group `policy`: the policies that learn from the reward model."""

from pathlib import Path

import dagster as dg

from rlhf_dagster.assets.define import MODEL, loop_asset, model_result, stage_progress
from rlhf_dagster.assets.launch import for_this_run, launch_config
from rlhf_dagster.config.training import DpoSettings, PpoSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.dpo import make_dpo_policy
from rlhf_dagster.loop.trainings.ppo import make_ppo_policy
from rlhf_dagster.resources.compute import Compute

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
_PpoLaunch = launch_config(PpoSettings)
_DpoLaunch = launch_config(DpoSettings)


@loop_asset("policy", by_round=True, gpu=True, **MODEL)
def ppo_policy(
    context: dg.AssetExecutionContext,
    config: _PpoLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    round_manifest: dict[str, str],
    sft_checkpoint: Checkpoint,
    reward_model: Checkpoint,
    prompts: Path,
    pretraining_text: Path,
    preference_dataset: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """The policy after PPO against this round's reward model, held to the SFT policy by a KL reward.

    The numbers are means over the last updates: `reward` is the reward model's score (the SFT policy has mean 0 and
    deviation 1, unless demonstrations normalise scores), `kl` the sequence KL to SFT in nats, `entropy` that of a token
    in nats, `kl_coef` the weight of the KL reward, `explained_variance` how well the value head predicts the returns
    (1 is best). `ratio_first`, the probability ratio before an update has changed anything, must be 1.
    `validation_reward` and `validation_kl` are measured on held-out prompts, where `ppo.validate_every` is set.
    """
    settings, progress = for_this_run(loop.config.ppo, config), stage_progress(context)
    result = make_ppo_policy(
        compute.on(loop),
        context.partition_key,
        settings,
        sft=sft_checkpoint,
        behaviour_policy=round_manifest["behaviour_policy"],
        reward_model=reward_model,
        prompts=prompts,
        pretraining_text=pretraining_text,
        preferences=preference_dataset,
        progress=progress,
    )
    shown = [name for name in COMPARED_BY_ROUND if name in result.metrics]
    return model_result(result, shown, behaviour_policy=round_manifest["behaviour_policy"])


@loop_asset("policy", by_round=True, gpu=True, **MODEL)
def dpo_policy(
    context: dg.AssetExecutionContext,
    config: _DpoLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    sft_checkpoint: Checkpoint,
    preference_dataset: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """The policy after DPO on all labels so far, without a reward model; trained by `train_round` with `arms: [dpo]`.

    `accuracy` is the share of pairs whose preferred response has become the likelier one against SFT, `reward_margin`
    by how many nats, times `dpo.beta`. This policy is reported beside PPO's, and not promoted.
    """
    settings, progress = for_this_run(loop.config.dpo, config), stage_progress(context)
    result = make_dpo_policy(
        compute.on(loop),
        context.partition_key,
        settings,
        sft=sft_checkpoint,
        preferences=preference_dataset,
        progress=progress,
    )
    return model_result(result)
