"""The reward model of a round."""

from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import StageResult, keep_model, stage_work
from rlhf_dagster.training.specs import RewardModelSpec


def make_reward_model(
    loop: LoopFolder,
    round_key: str,
    settings: RewardModelSettings,
    *,
    sft: Checkpoint,
    preferences: Path,
    prompts: Path,
    progress: Progress,
) -> StageResult:
    """Train the reward model of a round from the SFT checkpoint on all labels so far."""
    config, seed = loop.config, loop.config.stage_seed("reward_model", round_key)
    work = stage_work(loop, "reward", round_key)
    require_base_of(loop, sft)
    with own_copies(work, preferences, prompts, *_demonstrations(loop, settings)) as (labels, texts, *demonstrations):
        spec = RewardModelSpec(
            sft=sft.folder,
            preferences=labels,
            prompts=texts,
            output=work.output,
            settings=settings,
            sampling=config.sampling,
            seed=seed,
            compute=config.compute,
            demonstrations=demonstrations[0] if demonstrations else None,
        )
        return keep_model(
            loop,
            "reward",
            round_key,
            run_training("reward_model", spec, work, progress),
            work,
            seed=seed,
            settings={"reward_model": settings},
            parents={"sft_checkpoint": sft},
            preferences=labels,
        )


def _demonstrations(loop: LoopFolder, settings: RewardModelSettings) -> list[Path]:
    """The table that fixes the mean of scores, where one does; SFT has read it, so that it is there."""
    if settings.normalisation != "demonstrations":
        return []
    return [loop.store.local(loop.asset_key("demonstrations"))]
