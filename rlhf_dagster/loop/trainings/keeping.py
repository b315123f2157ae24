"""Where a stage trains, and how the model that it made is kept: manifest, place, registry."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_dagster.compute.work import Trained, Work
from rlhf_dagster.config.base import Settings
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.lineage.model_folders import content_of
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.parquet import read_parquet

START = "start"
"""Role, in the manifest, of the model whose weights a training begins with.

The registry does not name it among the parents: with it, a round of version 0.1 that is run again would register the
same policy differently, which is refused.
"""


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
    ray_job: str = ""
    """The job of Ray that trained it; empty where none did."""


def stage_work(loop: LoopFolder, kind: str, round_key: str = "") -> Work:
    """Where a stage trains, and where its logs stay."""
    folder = loop.models.work_folder(kind, round_key)
    return Work(folder, loop.store, loop.root / "logs" / folder.name, loop.config.name)


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
    feedback: Path | None = None,
) -> StageResult:
    """Write the manifest, move the model to its place, and delete the work folder."""
    result = trained.result
    snapshot = read_parquet(preferences).to_pandas() if preferences else None
    write_manifest(
        result.folder,
        kind=kind,
        round_key=round_key,
        parents={
            role: {"model_id": parent.model_id, "digest": parent.digest} for role, parent in (parents or {}).items()
        },
        dataset_hash=None if snapshot is None else snapshot_hash(snapshot),
        feedback_hash=None if feedback is None else content_of(feedback),
        label_ids=[] if snapshot is None else snapshot.loc[snapshot["split"] == "train", "label_id"],
        seed=seed,
        config={name: value.recorded() for name, value in settings.items()},
        metrics=result.metrics,
        curves=result.curves,
        warnings=result.warnings,
    )
    checkpoint = loop.models.identify(result.folder, kind, round_key)
    loop.models.keep(result.folder, checkpoint)
    work.clear()
    logs = work.logs if trained.usage else None
    return StageResult(checkpoint, result.metrics, result.curves, result.warnings, trained.usage, logs, trained.ray_job)


def keep_policy(
    loop: LoopFolder,
    kind: str,
    round_key: str,
    trained: Trained,
    work: Work,
    *,
    seed: int,
    settings: dict[str, Settings],
    parents: dict[str, Checkpoint],
    preferences: Path | None = None,
    feedback: Path | None = None,
) -> StageResult:
    """:func:`keep_model` of a policy, which is registered with its parents as well."""
    kept = keep_model(
        loop,
        kind,
        round_key,
        trained,
        work,
        seed=seed,
        settings=settings,
        parents=parents,
        preferences=preferences,
        feedback=feedback,
    )
    policy = kept.checkpoint
    named = list(dict.fromkeys(parent.model_id for role, parent in parents.items() if role != START))
    loop.registry.register(policy.model_id, policy.path, kind, round_key, named, policy.digest)
    return kept
