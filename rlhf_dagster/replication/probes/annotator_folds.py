"""Reward models that leave out the labels of some people, on the labels of these and of all others."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.common.intervals import clustered_rate
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.reward_accuracy import score_labels
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import PREFERENCES, table
from rlhf_dagster.replication.estimates.differences import paired_difference_of_shares
from rlhf_dagster.replication.probes.models import newest


def annotator_folds(loop: LoopFolder, folds: int, comparisons: int) -> dict[str, Any]:
    """Accuracy on labels of people learned from (``own``) and of people left out (``held_out``), and their ``gap``.

    There is a model for each of ``folds`` of the annotators, and so many ``comparisons`` are learned from; the labels
    of the others, of at most as many again, are measured on. Each label counts once for the model that has left its
    annotator out, and by its mean over the models that have not, so that the two are about the same labels
    (InstructGPT, section 4.1).
    """
    labels = _labels(loop)
    learned = _drawn(labels, comparisons)
    trained, measured = labels[labels["comparison_id"].isin(learned)], _measured(labels, learned)
    fold_of = _folds(sorted(set(labels["annotator"])), folds, loop.config.seed)
    credit = np.array(
        [_credit(loop, trained[trained["annotator"].map(fold_of) != fold], measured) for fold in range(folds)]
    )
    left_out = np.array([measured["annotator"].map(fold_of) == fold for fold in range(folds)])
    held_out = (credit * left_out).sum(axis=0)
    own = (credit * ~left_out).sum(axis=0) / (folds - 1)
    clusters = measured["comparison_id"].tolist()
    return {
        "own": clustered_rate(own, clusters).as_dict(),
        "held_out": clustered_rate(held_out, clusters).as_dict(),
        "gap": paired_difference_of_shares(own, held_out).as_dict(),
    }


def _labels(loop: LoopFolder) -> pd.DataFrame:
    """The newest snapshot's labels that decide something, whatever their split, in an order of their own."""
    key = max(loop.rounds_with("preference_dataset"), default="")
    found = loop.table("preference_dataset", key) if key else None
    if found is None:
        raise UserError(f"{loop.root}: there are no labels yet; let a round get there first.")
    decided = found["target"].map(lambda target: max(target) > min(target))
    return found[decided].sort_values(["comparison_id", "annotator"]).reset_index(drop=True)


def _drawn(labels: pd.DataFrame, n: int) -> set[str]:
    return set(sorted(set(labels["comparison_id"]), key=lambda one: content_hash("fold", one))[:n])


def _measured(labels: pd.DataFrame, learned: set[str]) -> pd.DataFrame:
    """Labels on prompts that are not learned from, of at most as many comparisons."""
    prompts = labels.loc[labels["comparison_id"].isin(learned), "prompt_id"]
    others = labels[~labels["prompt_id"].isin(prompts)]
    if others.empty:
        raise UserError(f"annotator_folds learns from all {len(learned)} comparisons; lower `comparisons`.")
    return others[others["comparison_id"].isin(_drawn(others, len(learned)))].reset_index(drop=True)


def _folds(people: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    if not 2 <= folds <= len(people):
        raise UserError(f"annotator_folds cannot make {folds} folds of {len(people)} annotators; give 2 or more.")
    ranked = sorted(people, key=lambda name: content_hash("annotators in folds", seed, name))
    return {name: place % folds for place, name in enumerate(ranked)}


def _credit(loop: LoopFolder, trained: pd.DataFrame, measured: pd.DataFrame) -> np.ndarray:
    """Of each label, the share of the highest-scored responses that it names best, shape [n]."""
    from rlhf_dagster.training.reward.scores import score_responses

    with TemporaryDirectory() as folder:
        model = _train(loop, trained.assign(split="train", weight=1.0), Path(folder))
        counts = measured["responses"].map(len)
        prompts = [prompt for prompt, n in zip(prompts_of(measured), counts, strict=True) for _ in range(n)]
        texts = [text for texts in measured["responses"] for text in texts]
        scores = np.asarray(score_responses(model, prompts, texts, loop.config.sampling, loop.config.compute))
    by_label = np.split(scores, np.cumsum(counts)[:-1])
    return score_labels(measured, by_label)["credit"].to_numpy(dtype=np.float64)


def _train(loop: LoopFolder, labels: pd.DataFrame, folder: Path) -> Path:
    """A reward model of the loop's own settings, which leaves nothing in the loop."""
    from rlhf_dagster.training.reward.train import train_reward_model
    from rlhf_dagster.training.specs import RewardModelSpec

    preferences, config = folder / "preferences.parquet", loop.config
    preferences.write_bytes(to_parquet(table(labels, PREFERENCES)))
    spec = RewardModelSpec(
        sft=newest(loop, "sft_checkpoint").folder,
        preferences=preferences,
        prompts=loop.store.local(loop.asset_key("prompts")),
        output=folder / "model",
        settings=config.reward_model,
        sampling=config.sampling,
        seed=config.stage_seed("annotator folds"),
        compute=config.compute,
    )
    train_reward_model(spec)
    return spec.output
