"""The candidate of a round: PPO's policy."""

from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.judging.reward import ModelReward, uses_reward_model
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of, require_one_tokenizer
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import START, StageResult, keep_policy, stage_work
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.round_keys import IMPORTED_POLICY
from rlhf_dagster.training.functions import reward_from_folder
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
    """Train the policy of a round with PPO and register it; whether it is promoted is a later decision.

    A reward model that the setting `reward` does not name is no parent, unless a value model begins as it. Raises
    UserError where the models cannot be compared, or the reward model has learned from other labels.
    """
    config, seed, work = loop.config, loop.config.stage_seed("ppo", round_key), stage_work(loop, "ppo", round_key)
    start = _start(loop, settings, behaviour_policy, sft)
    require_base_of(loop, sft)
    require_one_tokenizer(sft, start, reward_model)
    with own_copies(work, prompts, pretraining_text, preferences) as (asked, texts, labels):
        _require_trained_on(labels, reward_model)
        own = config.reward != ModelReward()
        used = settings.value == "separate" or uses_reward_model(config.reward)
        spec = PpoSpec(
            sft=sft.folder,
            start=start.folder,
            reward_model=reward_model.folder if used else None,
            prompts=asked,
            pretraining_text=texts,
            output=work.output,
            settings=settings,
            sampling=config.sampling,
            seed=seed,
            compute=config.compute,
            reward=reward_from_folder(config.reward, loop.root) if own else None,
            answers=loop.address,
        )
        trained = run_training("ppo", spec, work, progress)
        parents = {"sft_checkpoint": sft, START: start} | ({"reward_model": reward_model} if used else {})
        configs: dict[str, Settings] = {"ppo": settings, "sampling": config.sampling}
        configs |= {"reward": config.reward} if own else {}
        return keep_policy(
            loop, "ppo", round_key, trained, work, seed=seed, settings=configs, parents=parents, preferences=labels
        )


def _require_trained_on(labels: Path, reward_model: Checkpoint) -> None:
    """Raise UserError where a reward model has read other labels than those that the policy's manifest will name."""
    read = read_manifest(reward_model.folder)["dataset"]
    if read not in (None, snapshot_hash(read_parquet(labels).to_pandas())):
        raise UserError(
            f"preference_dataset was made again after {reward_model.model_id} had been trained on it; make the reward "
            "model again first."
        )


def _start(loop: LoopFolder, settings: PpoSettings, behaviour_policy: str, sft: Checkpoint) -> Checkpoint:
    """The checkpoint that PPO starts from."""
    if settings.start == "sft" or behaviour_policy in (sft.model_id, IMPORTED_POLICY):
        return sft
    return loop.policy(behaviour_policy)
