"""The SFT checkpoint."""

from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.config.training import SftSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_same_base
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import StageResult, keep_policy, stage_work
from rlhf_dagster.training.specs import SftSpec


def make_sft_checkpoint(
    loop: LoopFolder, settings: SftSettings, base: Checkpoint, demonstrations: Path, progress: Progress
) -> StageResult:
    """Fine-tune the base model on demonstrations and register the result, which is the first champion."""
    config, seed, work = loop.config, loop.config.stage_seed("sft"), stage_work(loop, "sft")
    require_same_base(loop, base)
    with own_copies(work, demonstrations) as (written,):
        spec = SftSpec(
            model=base.folder,
            demonstrations=written,
            output=work.output,
            settings=settings,
            sampling=config.sampling,
            seed=seed,
            compute=config.compute,
        )
        kept = keep_policy(
            loop,
            "sft",
            "",
            run_training("sft", spec, work, progress),
            work,
            seed=seed,
            settings={"sft": settings, "sampling": config.sampling},
            parents={"base_model": base},
        )
    loop.registry.set_initial(kept.checkpoint.model_id)
    return kept
