"""The base model: from the Hub, from a folder, or pretrained here once for all loops that want the same one."""

import shutil
import uuid
from pathlib import Path

from rlhf_dagster.common.files import cache_folder
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.work import Trained, Work
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.config.model_sizes import TOY_PARAMETERS, in_millions, preset_for
from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_same_base
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import StageResult, keep_model, stage_work
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.training.input_sizes import parameters_of
from rlhf_dagster.training.specs import TinyModelSpec, TrainingResult

BASE_MODEL_RECIPE = "1"
"""Part of the cache key of pretrained tiny models; change it with the pretraining code."""


def build_base_model(loop: LoopFolder, pretraining_text: Path, progress: Progress) -> StageResult:
    """The base model: from the Hub or a folder, or a tiny one pretrained here and cached by content.

    Raises UserError where the champion of a round goes back to another base model.
    """
    settings = loop.config.base_model
    if settings.source == "tiny":
        kept = _pretrained(loop, settings, pretraining_text, progress)
    else:
        kept = _found(loop, settings)
    require_same_base(loop, kept.checkpoint)
    return kept


def _found(loop: LoopFolder, settings: BaseModelSettings) -> StageResult:
    from rlhf_dagster.training.probe.base_model import load_usable_base_model

    work = stage_work(loop, "base")
    # A relative folder is relative to the loop's folder, wherever the process runs.
    found = settings.changed(name=str(loop.root / settings.name)) if _in_folder(settings) else settings
    work.prepare()
    if found.source == "folder":
        _refuse_toy_settings(loop, parameters_of(Path(found.name)))
    loaded = Trained(load_usable_base_model(found, work.output))
    _refuse_toy_settings(loop, int(loaded.result.metrics["parameters"]))
    return keep_model(loop, "base", "", loaded, work, seed=0, settings={"base_model": settings})


def _refuse_toy_settings(loop: LoopFolder, parameters: int) -> None:
    """Raise UserError where a real model would be trained with the settings of a toy, because nobody chose others.

    A loop that has a champion goes on as it began.
    """
    left = loop.config.left_to_the_toy()
    begun = loop.registry.champion() is not None
    if parameters <= TOY_PARAMETERS or not left or begun:
        return
    raise UserError(
        f"base_model {loop.config.base_model.name} has {in_millions(parameters)} parameters, and `preset: tiny` is for "
        f"a toy of one million, also where it is not written; set `preset: {preset_for(parameters)}` in {CONFIG_FILE}, "
        f"or set these yourself: {', '.join(left)}."
    )


def _pretrained(
    loop: LoopFolder, settings: BaseModelSettings, pretraining_text: Path, progress: Progress
) -> StageResult:
    work = stage_work(loop, "base")
    with own_copies(work, pretraining_text) as (texts,):
        cached = _cached(settings, texts)
        trained = _from_cache(cached, work) if cached.is_dir() else _pretrain(loop, settings, texts, work, progress)
        kept = keep_model(loop, "base", "", trained, work, seed=settings.tiny.seed, settings={"base_model": settings})
    if not cached.is_dir():
        _copy(kept.checkpoint.folder, cached)
    return kept


def _cached(settings: BaseModelSettings, texts: Path) -> Path:
    ids = sorted(read_parquet(texts).to_pandas()["text_id"])
    return base_model_cache() / content_hash("base", BASE_MODEL_RECIPE, settings.tiny.recorded(), ids)


def _from_cache(cached: Path, work: Work) -> Trained:
    work.prepare()
    shutil.copytree(cached, work.output)
    manifest = read_manifest(work.output)
    return Trained(TrainingResult(work.output, manifest["metrics"], manifest["curves"]))


def _pretrain(loop: LoopFolder, settings: BaseModelSettings, texts: Path, work: Work, progress: Progress) -> Trained:
    spec = TinyModelSpec(texts, work.output, settings.tiny, loop.config.compute)
    return run_training("tiny_model", spec, work, progress)


def _in_folder(settings: BaseModelSettings) -> bool:
    return settings.source == "folder" and bool(settings.name)


def base_model_cache() -> Path:
    return cache_folder() / "base_models"


def _copy(source: Path, target: Path) -> None:
    beside = target.with_name(f"{target.name}.{uuid.uuid4().hex}.new")
    shutil.copytree(source, beside)
    try:
        beside.rename(target)
    except OSError:  # another process has put the same model there
        shutil.rmtree(beside)
