"""The stages that make a model: build the spec, train, write the manifest, keep the result. No Dagster here."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from rlhf_dagster.common.files import cache_folder
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import Trained, Work, run_training
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.training import BaseModelSettings, DpoSettings, PpoSettings, RewardModelSettings, SftSettings
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import read_manifest, write_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.round_keys import IMPORTED_POLICY
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, TinyModelSpec, TrainingResult

BASE_MODEL_RECIPE = "1"
"""Part of the cache key of pretrained tiny models; change it with the pretraining code."""


@dataclass(frozen=True)
class StageResult:
    """A kept checkpoint with the training's last numbers, curves and warnings."""

    checkpoint: Checkpoint
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    usage: dict[str, float] = field(default_factory=dict)
    """What the training cost (:func:`rlhf_dagster.compute.usage.measuring`)."""
    logs: Path | None = None
    """Folder of the training's metrics and TensorBoard events; None where the model was not trained now."""


def build_base_model(loop: LoopFolder, pretraining_text: Path, progress: Progress) -> StageResult:
    """The base model: from the Hub or a folder, or a tiny one pretrained here and cached by content."""
    from rlhf_dagster.training.pretraining.base_model import load_base_model

    settings, work = loop.config.base_model, stage_work(loop, "base")
    if settings.source != "tiny":
        # A relative folder is relative to the loop's folder, wherever the process runs.
        found = settings.changed(name=str(loop.root / settings.name)) if _in_folder(settings) else settings
        work.prepare()
        loaded = Trained(load_base_model(found, work.output))
        return keep_model(loop, "base", "", loaded, work, seed=0, settings={"base_model": settings})
    texts = pd.read_parquet(pretraining_text)
    cached = base_model_cache() / content_hash(
        "base", BASE_MODEL_RECIPE, settings.tiny.model_dump(), sorted(texts["text_id"])
    )
    if cached.is_dir():
        work.prepare()
        shutil.copytree(cached, work.output)
        manifest = read_manifest(work.output)
        trained = Trained(TrainingResult(work.output, manifest["metrics"], manifest["curves"]))
    else:
        spec = TinyModelSpec(pretraining_text, work.output, settings.tiny, loop.config.compute)
        trained = run_training("tiny_model", spec, work, progress)
    kept = keep_model(loop, "base", "", trained, work, seed=settings.tiny.seed, settings={"base_model": settings})
    if not cached.is_dir():
        _copy(kept.checkpoint.folder, cached)
    return kept


def make_sft_checkpoint(
    loop: LoopFolder, settings: SftSettings, base: Checkpoint, demonstrations: Path, progress: Progress
) -> StageResult:
    """Fine-tune the base model on demonstrations and register the result, which is the first champion."""
    config, seed, work = loop.config, loop.config.stage_seed("sft"), stage_work(loop, "sft")
    spec = SftSpec(
        model=base.folder,
        demonstrations=demonstrations,
        output=work.output,
        settings=settings,
        sampling=config.sampling,
        seed=seed,
        compute=config.compute,
    )
    kept = keep_model(
        loop,
        "sft",
        "",
        run_training("sft", spec, work, progress),
        work,
        seed=seed,
        settings={"sft": settings, "sampling": config.sampling},
        parents={"base_model": base},
    )
    _register(loop, kept.checkpoint, "sft", "", [base])
    loop.registry.set_initial(kept.checkpoint.model_id)
    return kept


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
    spec = RewardModelSpec(
        sft=sft.folder,
        preferences=preferences,
        prompts=prompts,
        output=work.output,
        settings=settings,
        sampling=config.sampling,
        seed=seed,
        compute=config.compute,
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
        preferences=preferences,
    )


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
    parents = {"sft_checkpoint": sft, "start": start, "reward_model": reward_model}
    configs: dict[str, Settings] = {"ppo": settings, "sampling": config.sampling}
    kept = keep_model(
        loop, "ppo", round_key, trained, work, seed=seed, settings=configs, parents=parents, preferences=preferences
    )
    _register(loop, kept.checkpoint, "ppo", round_key, [sft, reward_model])
    return kept


def _start(loop: LoopFolder, settings: PpoSettings, behaviour_policy: str, sft: Checkpoint) -> Checkpoint:
    """The checkpoint that PPO starts from."""
    if settings.start == "sft" or behaviour_policy in (sft.model_id, IMPORTED_POLICY):
        return sft
    return loop.policy(behaviour_policy)


def _register(loop: LoopFolder, policy: Checkpoint, kind: str, round_key: str, parents: Sequence[Checkpoint]) -> None:
    named = [parent.model_id for parent in parents]
    loop.registry.register(policy.model_id, policy.path, kind, round_key, named, policy.digest)


def _in_folder(settings: BaseModelSettings) -> bool:
    return settings.source == "folder" and bool(settings.name)


def base_model_cache() -> Path:
    return cache_folder() / "base_models"


def stage_work(loop: LoopFolder, kind: str, round_key: str = "") -> Work:
    """Where a stage trains, and where its logs stay."""
    folder = loop.models.work_folder(kind, round_key)
    return Work(folder, loop.root, loop.root / "logs" / folder.name, loop.config.name)


def _copy(source: Path, target: Path) -> None:
    beside = target.with_name(f"{target.name}.{os.getpid()}.new")
    shutil.copytree(source, beside)
    try:
        beside.rename(target)
    except OSError:  # another process has put the same model there
        shutil.rmtree(beside)


def keep_model(
    loop: LoopFolder,
    kind: str,
    round_key: str,
    trained: Trained,
    work: Work,
    *,
    seed: int,
    settings: dict[str, Settings],
    parents: dict[str, Checkpoint] | None = None,
    preferences: Path | None = None,
) -> StageResult:
    """Write the manifest, move the model to its place, and delete the work folder."""
    result = trained.result
    snapshot = pd.read_parquet(preferences) if preferences else None
    write_manifest(
        result.folder,
        kind=kind,
        round_key=round_key,
        parents={
            role: {"model_id": parent.model_id, "digest": parent.digest} for role, parent in (parents or {}).items()
        },
        dataset_hash=None if snapshot is None else snapshot_hash(snapshot),
        label_ids=[] if snapshot is None else snapshot.loc[snapshot["split"] == "train", "label_id"],
        seed=seed,
        config={name: value.model_dump() for name, value in settings.items()},
        metrics=result.metrics,
        curves=result.curves,
        warnings=result.warnings,
    )
    checkpoint = loop.models.identify(result.folder, kind, round_key)
    loop.models.keep(result.folder, checkpoint)
    work.clear()
    logs = work.logs if trained.usage else None
    return StageResult(checkpoint, result.metrics, result.curves, result.warnings, trained.usage, logs)


def make_dpo_policy(
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
    _register(loop, kept.checkpoint, "dpo", round_key, [sft])
    return kept
