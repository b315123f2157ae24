"""The policies that PPO trains: of its own arm, and of those whose advantages compare responses."""

from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.config.arm_settings.group_advantages import GroupAdvantageSettings
from rlhf_dagster.config.arms import PPO, Arm
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.judging.reward import ModelReward, uses_reward_model
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of, require_one_tokenizer
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import START, StageResult, keep_policy, stage_work
from rlhf_dagster.loop.trainings.own_names import OwnNames
from rlhf_dagster.loop.trainings.starts import require_trained_on, start_of
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
    arm: Arm = PPO,
) -> StageResult:
    """Train the policy of an arm with PPO and register it; whether it is promoted is a later decision.

    Seed, place and names are the ``arm``'s. A reward model that the setting `reward` does not name is no parent, unless
    a value model begins as it. Raises UserError where the models cannot be compared, or the reward model has learned
    from other labels.
    """
    config, seed, work = loop.config, loop.config.stage_seed(arm.name, round_key), stage_work(loop, arm.kind, round_key)
    start = start_of(loop, settings.start, behaviour_policy, sft)
    require_base_of(loop, sft)
    require_one_tokenizer(sft, start, reward_model)
    with own_copies(work, prompts, pretraining_text, preferences) as (asked, texts, labels):
        require_trained_on(labels, reward_model)
        own = config.reward != ModelReward()
        plain = settings.as_ppo() if isinstance(settings, GroupAdvantageSettings) else settings
        used = settings.value == "separate" or uses_reward_model(config.reward)
        spec = PpoSpec(
            sft=sft.folder,
            start=start.folder,
            reward_model=reward_model.folder if used else None,
            prompts=asked,
            pretraining_text=texts,
            output=work.output,
            settings=plain,
            sampling=config.sampling,
            seed=seed,
            compute=config.compute,
            reward=reward_from_folder(config.reward, loop.root) if own else None,
            answers=loop.address,
        )
        names = OwnNames("ppo", arm.name, PpoSettings.model_fields)
        with names.in_errors():
            trained = names.in_warnings(run_training("ppo", spec, work, progress))
        parents = {"sft_checkpoint": sft, START: start} | ({"reward_model": reward_model} if used else {})
        configs: dict[str, Settings] = {arm.name: settings, "sampling": config.sampling}
        configs |= {"reward": config.reward} if own else {}
        return keep_policy(
            loop, arm.kind, round_key, trained, work, seed=seed, settings=configs, parents=parents, preferences=labels
        )
