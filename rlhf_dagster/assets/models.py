"""Group `model`: the base model and the SFT checkpoint."""

from pathlib import Path

import dagster as dg

from rlhf_dagster.assets.define import MODEL, loop_asset, stage_progress
from rlhf_dagster.assets.launch import for_this_run, launch_config
from rlhf_dagster.assets.metadata import model_result
from rlhf_dagster.config.training import SftSettings
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.base_model import build_base_model
from rlhf_dagster.loop.trainings.sft import make_sft_checkpoint
from rlhf_dagster.resources.compute import Compute

_SftLaunch = launch_config(SftSettings)


@loop_asset("model", gpu=True, **MODEL)
def base_model(
    context: dg.AssetExecutionContext, loop: dg.ResourceParam[LoopFolder], compute: Compute, pretraining_text: Path
) -> dg.MaterializeResult[Checkpoint]:
    """The pretrained model: a Hub id and revision, a folder, or a tiny GPT-2 pretrained here and cached by content."""
    return model_result(build_base_model(compute.on(loop), pretraining_text, stage_progress(context)))


@loop_asset("model", gpu=True, **MODEL)
def sft_checkpoint(
    context: dg.AssetExecutionContext,
    config: _SftLaunch,  # type: ignore[valid-type]
    loop: dg.ResourceParam[LoopFolder],
    compute: Compute,
    base_model: Checkpoint,
    demonstrations: Path,
) -> dg.MaterializeResult[Checkpoint]:
    """The base model after fine-tuning on demonstrations: the first champion, and every policy's reference."""
    settings = for_this_run(loop.config.sft, config)
    return model_result(
        make_sft_checkpoint(compute.on(loop), settings, base_model, demonstrations, stage_progress(context))
    )
