"""The round's DPO policy: trained on the same labels as the reward model, registered, and not promoted."""

from pathlib import Path

from rlhf_dagster.compute.run import run_training
from rlhf_dagster.loop_folder import LoopFolder
from rlhf_dagster.models import Checkpoint
from rlhf_dagster.progress import Progress
from rlhf_dagster.stages.models import StageResult, keep_model, stage_work
from rlhf_dagster.training.settings import DpoSettings
from rlhf_dagster.training.specs import DpoSpec


def train_dpo(
    loop: LoopFolder,
    round_key: str,
    settings: DpoSettings,
    *,
    sft: Checkpoint,
    preferences: Path,
    progress: Progress,
) -> StageResult:
    """Train the SFT checkpoint on all labels so far by direct preference optimisation."""
    config, seed, work = loop.config, loop.config.stage_seed("dpo", round_key), stage_work(loop, "dpo", round_key)
    spec = DpoSpec(
        sft=sft.folder,
        preferences=preferences,
        output=work.output,
        settings=settings,
        sampling=config.sampling,
        seed=seed,
        compute=config.compute,
    )
    kept = keep_model(
        loop,
        "dpo",
        round_key,
        run_training("dpo", spec, work, progress),
        work,
        seed=seed,
        settings={"dpo": settings, "sampling": config.sampling},
        parents={"sft_checkpoint": sft},
        preferences=preferences,
    )
    loop.registry.register(kept.checkpoint.model_id, kept.checkpoint.path, "dpo", round_key, [sft.model_id])
    return kept
