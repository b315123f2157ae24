"""The candidate of a round: PPO's policy."""

from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import START, StageResult, keep_policy, stage_work
from rlhf_dagster.records.round_keys import IMPORTED_POLICY
from rlhf_dagster.training.specs import PpoSpec


def make_ppo_policy(
    loop: LoopFolder,
    round_key: str,
    settings: PpoSettings,
    *,
    sft: Checkpoint,
    behaviour_policy: str,
    reward_model: Checkpoint,
    prompts: Path,
    pretraining_text: Path,
    preferences: Path,
    progress: Progress,
) -> StageResult:
    """Train the policy of a round with PPO and register it; whether it is promoted is a later decision."""
    config, seed, work = loop.config, loop.config.stage_seed("ppo", round_key), stage_work(loop, "ppo", round_key)
    start = _start(loop, settings, behaviour_policy, sft)
    spec = PpoSpec(
        sft=sft.folder,
        start=start.folder,
        reward_model=reward_model.folder,
        prompts=prompts,
        pretraining_text=pretraining_text,
        output=work.output,
        settings=settings,
        sampling=config.sampling,
        seed=seed,
        compute=config.compute,
    )
    trained = run_training("ppo", spec, work, progress)
    parents = {"sft_checkpoint": sft, START: start, "reward_model": reward_model}
    configs: dict[str, Settings] = {"ppo": settings, "sampling": config.sampling}
    return keep_policy(
        loop, "ppo", round_key, trained, work, seed=seed, settings=configs, parents=parents, preferences=preferences
    )


def _start(loop: LoopFolder, settings: PpoSettings, behaviour_policy: str, sft: Checkpoint) -> Checkpoint:
    """The checkpoint that PPO starts from."""
    if settings.start == "sft" or behaviour_policy in (sft.model_id, IMPORTED_POLICY):
        return sft
    return loop.policy(behaviour_policy)
