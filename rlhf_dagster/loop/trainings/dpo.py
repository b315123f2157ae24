"""The policy of the arm DPO."""

from pathlib import Path

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.config.training import DpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import StageResult, keep_policy, stage_work
from rlhf_dagster.training.specs import DpoSpec


def make_dpo_policy(
    loop: LoopFolder,
    round_key: str,
    settings: DpoSettings,
    *,
    sft: Checkpoint,
    preferences: Path,
    feedback: Path | None = None,
    progress: Progress,
) -> StageResult:
    """Train the SFT checkpoint on all labels so far by direct preference optimisation, and on ``feedback`` by KTO.

    Raises UserError where `dpo.loss` is kto and the round has no feedback: one run alone cannot set it.
    """
    if settings.loss == "kto" and feedback is None:
        raise UserError(
            "`dpo.loss: kto` learns from the asset `feedback`, which the loop has not; set it in `loop.yaml`."
        )
    config, seed, work = loop.config, loop.config.stage_seed("dpo", round_key), stage_work(loop, "dpo", round_key)
    require_base_of(loop, sft)
    with own_copies(work, *(table for table in (preferences, feedback) if table)) as (labels, *thought):
        spec = DpoSpec(
            sft=sft.folder,
            preferences=labels,
            output=work.output,
            settings=settings,
            sampling=config.sampling,
            seed=seed,
            compute=config.compute,
            feedback=thought[0] if thought and settings.loss == "kto" else None,
        )
        return keep_policy(
            loop,
            "dpo",
            round_key,
            run_training("dpo", spec, work, progress),
            work,
            seed=seed,
            settings={"dpo": settings, "sampling": config.sampling},
            parents={"sft_checkpoint": sft},
            preferences=labels,
            feedback=spec.feedback,
        )
