"""Reward models that each leave out the labels of some people (InstructGPT, section 4.1)."""

from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.intervals import clustered_rate, mean_interval
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.reward_accuracy import score_labels
from rlhf_dagster.labeling.dataset import build_preferences
from rlhf_dagster.loop.evaluation import scores_of_compared
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import stage_work
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import PREFERENCES, table
from rlhf_dagster.replication.probes.responses import made_model
from rlhf_dagster.replication.probes.scoring import last_round
from rlhf_dagster.training.specs import RewardModelSpec


def annotator_folds(loop: LoopFolder, folds: int, comparisons: int, measured: float = 0.1) -> dict[str, Any]:
    """Accuracy on labels of people whom a reward model learned from, and of people held out.

    The people of the last round are drawn into ``folds``. For each fold a reward model is trained on labels of so many
    ``comparisons`` by the others. Each label on the share ``measured`` of the prompts, from which none of them learned,
    is then predicted by the model that leaves its annotator out, and by all others. `held_out` and `own` are the shares
    of labels predicted, `gap` the mean of own minus held out over comparisons; labels that tie all responses are left
    out.
    """
    preferences = _all_people(loop, measured)
    fold = preferences["annotator"].map(_folds_of(preferences["annotator"], folds, loop.config.seed))
    credits = np.array([_credits(loop, preferences, fold == one, comparisons, one) for one in range(folds)])
    tested = (preferences["split"] == "validation").to_numpy()
    left_out = fold[tested].to_numpy()[None, :] == np.arange(folds)[:, None]
    held_out = credits[left_out.argmax(axis=0), np.arange(credits.shape[1])]
    own = np.where(left_out, 0.0, credits).sum(axis=0) / (folds - 1)
    clusters = preferences.loc[tested, "comparison_id"].to_numpy()
    kept = ~np.isnan(held_out)
    gaps = pd.Series(own[kept] - held_out[kept]).groupby(clusters[kept]).mean()
    return {
        "own": clustered_rate(own[kept], clusters[kept].tolist()).as_dict(),
        "held_out": clustered_rate(held_out[kept], clusters[kept].tolist()).as_dict(),
        "gap": mean_interval(gaps).as_dict(),
    }


def _all_people(loop: LoopFolder, measured: float) -> pd.DataFrame:
    """The last round's labels (schema PREFERENCES), none of whose people is held out, split anew by prompt."""
    key = last_round(loop, "preference_dataset")
    labels, comparisons, prompts = (loop.table(*one) for one in _tables(key))
    if labels is None or comparisons is None or prompts is None:
        raise UserError(f"{loop.root}: {key} has no labels; let the variant end later.")
    test = prompts.loc[prompts["split"] == "test", "prompt_id"]
    asked = comparisons[~comparisons["prompt_id"].isin(test)]
    kept = labels[labels["comparison_id"].isin(asked["comparison_id"])]
    settings = loop.config.labeling.changed(held_out_annotators=0.0, validation=measured, validation_by="prompt")
    return build_preferences(kept, asked, settings, loop.config.seed)[0]


def _tables(key: str) -> list[tuple[str, str]]:
    return [("preference_labels", key), ("preference_batch", key), ("prompts", "")]


def _folds_of(annotators: pd.Series, folds: int, seed: int) -> dict[str, int]:
    """The fold of each person; raises UserError where there are fewer people than folds."""
    people = sorted(set(annotators), key=lambda name: content_hash("fold", seed, name))
    if len(people) < folds:
        raise UserError(f"{len(people)} people cannot be drawn into {folds} folds; ask for fewer folds.")
    return {name: place % folds for place, name in enumerate(people)}


def _credits(
    loop: LoopFolder, preferences: pd.DataFrame, left_out: pd.Series, comparisons: int, number: int
) -> np.ndarray:
    """Whether the reward model of a fold predicts each label of the split `validation`, shape [n]; NaN for ties."""
    trained = _drawn(preferences[(preferences["split"] == "train") & ~left_out], comparisons, loop.config.seed)
    tested = preferences[preferences["split"] == "validation"].reset_index(drop=True)
    rows = _predicted(loop, pd.concat([trained, tested], ignore_index=True), tested, number)
    credit: np.ndarray = rows["credit"].astype(float).where(~rows["tied"].astype(bool)).to_numpy()
    return credit


def _drawn(labels: pd.DataFrame, comparisons: int, seed: int) -> pd.DataFrame:
    """The labels of so many comparisons, so that the models of all folds learn from as many."""
    order = sorted(set(labels["comparison_id"]), key=lambda one: content_hash("drawn", seed, one))
    if len(order) < comparisons:
        raise UserError(
            f"A fold has labels of {len(order):,} comparisons, and {comparisons:,} are asked for; ask fewer."
        )
    return labels[labels["comparison_id"].isin(order[:comparisons])]


def _predicted(loop: LoopFolder, preferences: pd.DataFrame, tested: pd.DataFrame, number: int) -> pd.DataFrame:
    """Train a reward model, and score labels with it (:func:`score_labels`); the model is not kept."""
    config, work = loop.config, stage_work(loop, f"fold-{number}")
    table_path = work.folder.with_name(f"fold-{number}.parquet")
    write_atomically(table_path, to_parquet(table(preferences, PREFERENCES)))
    local = loop.store.local
    demonstrations = config.reward_model.normalisation == "demonstrations"
    spec = RewardModelSpec(
        sft=made_model(loop, "sft_checkpoint").folder,
        preferences=table_path,
        prompts=local(loop.asset_key("prompts")),
        output=work.output,
        settings=config.reward_model,
        sampling=config.sampling,
        seed=config.stage_seed("probe of annotators", str(number)),
        compute=config.compute,
        demonstrations=local(loop.asset_key("demonstrations")) if demonstrations else None,
    )
    trained = run_training("reward_model", spec, work, Progress("annotator_folds", lambda _: None))
    scores = scores_of_compared(trained.result.folder, tested, config.sampling, config.compute)
    work.clear()
    table_path.unlink()
    return score_labels(tested, scores)
