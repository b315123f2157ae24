"""The policy of the arm best-of-n SFT: a policy fine-tuned on the best of its own samples."""

import shutil
from dataclasses import replace
from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.work import Trained
from rlhf_dagster.config.arm_settings.best_of_n_sft import OF_TRAINING, BestOfNSftSettings
from rlhf_dagster.config.arms import BEST_OF_N_SFT
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of, require_one_tokenizer
from rlhf_dagster.loop.trainings.best_samples import BEST_ROWS, Sampler
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import START, StageResult, keep_policy, stage_work
from rlhf_dagster.loop.trainings.own_names import OwnNames
from rlhf_dagster.loop.trainings.starts import require_trained_on, start_of
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.training.specs import SftSpec

KIND = BEST_OF_N_SFT.kind


def make_best_of_n_sft_policy(
    loop: LoopFolder,
    round_key: str,
    settings: BestOfNSftSettings,
    *,
    sft: Checkpoint,
    behaviour_policy: str,
    reward_model: Checkpoint,
    prompts: Path,
    preferences: Path,
    progress: Progress,
) -> StageResult:
    """Fine-tune the start on the best of its samples by the round's reward model, and register the policy.

    Its metrics are those of SFT and of :meth:`~rlhf_dagster.loop.trainings.best_samples.Sampler.draw`. Raises UserError
    where the models cannot be compared, the reward model has learned from other labels, or no response ends.
    """
    config, seed, work = loop.config, loop.config.stage_seed(KIND, round_key), stage_work(loop, KIND, round_key)
    start = start_of(loop, settings.start, behaviour_policy, sft)
    require_base_of(loop, sft)
    require_one_tokenizer(sft, start, reward_model)
    samples = loop.models.work_folder(f"{KIND}_samples", round_key)
    with own_copies(work, prompts, preferences) as (asked, labels):
        require_trained_on(labels, reward_model)
        sampler = Sampler(loop, start, reward_model, settings, seed)
        figures = sampler.draw(read_parquet(asked).to_pandas(), samples)
        spec = SftSpec(
            model=start.folder,
            demonstrations=samples / BEST_ROWS,
            output=work.output,
            settings=settings.as_sft(config.sft),
            sampling=config.sampling,
            seed=seed,
            compute=config.compute,
        )
        names = OwnNames("sft", KIND, OF_TRAINING)
        with names.in_errors():
            trained = names.in_warnings(run_training("sft", spec, work, progress))
        kept = keep_policy(
            loop,
            KIND,
            round_key,
            _with(figures, trained),
            work,
            seed=seed,
            settings={KIND: settings, "sft": spec.settings, "sampling": config.sampling},
            parents={"sft_checkpoint": sft, START: start, "reward_model": reward_model},
            preferences=labels,
        )
    shutil.rmtree(samples, ignore_errors=True)
    return kept


def _with(figures: dict[str, float], trained: Trained) -> Trained:
    counted = {name: value for name, value in figures.items() if value or name != "unended_responses"}
    return replace(trained, result=replace(trained.result, metrics=trained.result.metrics | counted))
