"""Two reward models on disjoint halves of the labels, for the over-optimisation alarm."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.loop.trainings.reward_model import make_reward_model
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.parquet import read_parquet, to_parquet
from rlhf_dagster.records.schemas import PREFERENCES, table

MIN_COMPARISONS = 50
"""Train comparisons that each half needs: a reward model of fewer says more about chance than about the policy."""

SWITCHED_OFF = "The over-optimisation alarm was switched off (gate.max_reward_drift) when the reward model was trained."


@dataclass(frozen=True)
class RewardModelHalves:
    """Two reward models, or none and a sentence that says why."""

    models: tuple[StageResult, ...] = ()
    unmeasured: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON's form: the checkpoints as pointers, which :func:`half_checkpoints` opens."""
        return {"checkpoints": [model.checkpoint.as_pointer() for model in self.models], "unmeasured": self.unmeasured}


def half_checkpoints(loop: LoopFolder, halves: dict[str, Any]) -> list[Checkpoint]:
    """The two checkpoints of :meth:`RewardModelHalves.as_dict`; empty where none were trained."""
    return [loop.pointed_to(pointer) for pointer in halves["checkpoints"]]


def split_in_halves(preferences: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """Two tables, each with the `train` labels on about half of the prompts, and with all rows of the other splits.

    A prompt's half is drawn by a hash, so that it stays where it is when later rounds add prompts.
    """
    side = preferences["prompt_id"].map(lambda prompt: int(content_hash("half", seed, prompt)[:8], 16) % 2)
    train = preferences["split"] == "train"
    return [preferences[~train | (side == half)] for half in (0, 1)]


def train_halves(
    loop: LoopFolder,
    round_key: str,
    settings: RewardModelSettings,
    *,
    sft: Checkpoint,
    preferences: Path,
    prompts: Path,
    progress: Progress,
) -> RewardModelHalves:
    """Train a reward model on each half like that of the round, from the same seed, so that only the labels differ.

    A half that an interrupted call has finished is not trained again.
    """
    if loop.config.gate.max_reward_drift is None:
        return RewardModelHalves(unmeasured=SWITCHED_OFF)
    tables = split_in_halves(read_parquet(preferences).to_pandas(), loop.config.seed)
    fewest = min(_comparisons(half) for half in tables)
    if fewest < MIN_COMPARISONS:
        return RewardModelHalves(unmeasured=_too_few(fewest))
    work = loop.models.work_folder("halves", round_key)
    work.mkdir(parents=True, exist_ok=True)
    models = []
    for name, half in zip("ab", tables, strict=True):
        path, done = work / f"{name}.parquet", work / f"{name}.json"
        identity = content_hash("half", snapshot_hash(half), settings.recorded(), sft.digest)
        model = _finished(loop, done, identity)
        if model is None:
            write_atomically(path, to_parquet(table(half, PREFERENCES)))
            model = make_reward_model(
                loop, round_key, settings, sft=sft, preferences=path, prompts=prompts, progress=progress
            )
            content = {"identity": identity, "checkpoint": model.checkpoint.as_pointer()}
            write_atomically(done, seal(content))
        models.append(model)
    shutil.rmtree(work)
    return RewardModelHalves(tuple(models))


def _comparisons(preferences: pd.DataFrame) -> int:
    return int(preferences.loc[preferences["split"] == "train", "comparison_id"].nunique())


def _too_few(fewest: int) -> str:
    return (
        f"The over-optimisation alarm is not measured: a half of the labels holds {fewest} comparisons, and "
        f"{MIN_COMPARISONS} are needed to train a reward model on it."
    )


def _finished(loop: LoopFolder, done: Path, identity: str) -> StageResult | None:
    """The half that an earlier call has trained on the same labels."""
    try:
        content = unseal(done.read_bytes(), done.name)
    except (FileNotFoundError, UserError):
        return None
    if content.get("identity") != identity:
        return None
    checkpoint = loop.pointed_to(content["checkpoint"])
    try:
        manifest = read_manifest(checkpoint.folder)
    except UserError:  # gone or damaged: it is trained again
        return None
    return StageResult(checkpoint, manifest["metrics"], manifest["curves"], manifest["warnings"])
