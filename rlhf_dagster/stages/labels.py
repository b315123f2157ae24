"""Comparisons out, labels in, and the snapshot a reward model trains on."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from rlhf_dagster.labeling.comparisons import build_ab_comparisons, build_comparisons
from rlhf_dagster.labeling.dataset import build_preferences
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.simulate import annotate
from rlhf_dagster.lineage.schemas import QUARANTINE, table
from rlhf_dagster.loop_folder import IMPORT_ROUND, LoopFolder
from rlhf_dagster.progress import Progress
from rlhf_dagster.stages.sampling import imported_table
from rlhf_dagster.tasks.base import get_task


@dataclass(frozen=True)
class Batch:
    """The comparisons of a round as the label store has them."""

    comparisons: pd.DataFrame
    sent: int
    already_there: int


def send_training_batch(loop: LoopFolder, round_key: str, completions: pd.DataFrame, progress: Progress) -> Batch:
    """Choose comparisons among the completions and send them; sending again adds nothing."""
    if round_key == IMPORT_ROUND:
        return _send(loop, round_key, "train", imported_table(loop, "comparisons"), progress)
    seed = loop.config.stage_seed("comparisons", round_key)
    comparisons = build_comparisons(completions, loop.config.labeling, round_key, purpose="train", seed=seed)
    return _send(loop, round_key, "train", comparisons, progress)


def send_evaluation_batch(loop: LoopFolder, round_key: str, completions: pd.DataFrame, progress: Progress) -> Batch:
    """A/B comparisons of the new policy against SFT and against the behaviour policy, on test prompts."""
    ids = completions.groupby("role")["policy_id"].first()
    others = list(dict.fromkeys([ids["sft"], ids["behaviour"]]))
    comparisons = build_ab_comparisons(
        completions.drop_duplicates("completion_id").drop(columns="role"),
        [(ids["policy"], other) for other in others],
        loop.config.evaluation.human_judgments,
        round_key,
        seed=loop.config.stage_seed("evaluation_batch", round_key),
    )
    return _send(loop, round_key, "evaluation", comparisons, progress)


def _send(loop: LoopFolder, round_key: str, purpose: str, comparisons: pd.DataFrame, progress: Progress) -> Batch:
    store = loop.label_store
    store.ensure_project(round_key, purpose)
    result = store.send(comparisons)
    if loop.config.label_store.simulated_annotators and round_key != IMPORT_ROUND:
        simulate(loop, round_key, purpose, progress)
    return Batch(store.comparisons(round_key, purpose), result.sent, result.already_there)


def simulate(loop: LoopFolder, round_key: str, purpose: str, progress: Progress, annotators: int | None = None) -> Any:
    """Let the task's simulated annotators give the labels that are still missing."""
    people = get_task(loop.config.data.task).annotators(loop.config.stage_seed("annotators"))[:annotators]
    return annotate(
        loop.label_store,
        people,
        round_key,
        purpose,
        seed=loop.config.stage_seed("annotate", round_key),
        progress=progress,
    )


def read_labels(loop: LoopFolder, round_key: str, purpose: str) -> tuple[pd.DataFrame, int]:
    """All versions of all labels (schema LABELS), and how many annotations could not be parsed.

    Those are kept in ``quarantine/<purpose>-<round>.parquet`` with the reason.
    """
    store = loop.label_store
    annotations, _ = store.read(round_key, purpose, None)
    labels, quarantine = labels_table(annotations, store.comparisons(round_key, purpose))
    path = _quarantine(loop, round_key, purpose)
    if len(quarantine) or path.exists():
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table(quarantine, QUARANTINE), path)
    return labels, len(quarantine)


def label_counts(loop: LoopFolder, up_to: str) -> dict[str, Any]:
    """What has been labelled for training in all rounds up to one: totals, and ``by_round`` the same for each."""
    rows = [_counts_of_round(loop, key) for key in loop.rounds_with("preference_labels", up_to)]
    added = ("comparisons", "labels", "usable", "skipped", "quarantined")
    people = loop.table_of_rounds("preference_labels", up_to)["annotator"].nunique()
    return {name: sum(row[name] for row in rows) for name in added} | {"annotators": people, "by_round": rows}


def _counts_of_round(loop: LoopFolder, round_key: str) -> dict[str, Any]:
    people = pd.read_parquet(loop.asset_path("preference_labels", round_key), columns=["annotator"])
    path = _quarantine(loop, round_key, "train")
    quarantined = pq.read_metadata(path).num_rows if path.exists() else 0
    counts = asdict(loop.label_store.count(round_key, "train"))
    return {"round": round_key, **counts, "annotators": people["annotator"].nunique(), "quarantined": quarantined}


def _quarantine(loop: LoopFolder, round_key: str, purpose: str) -> Path:
    return loop.root / "quarantine" / f"{purpose}-{round_key}.parquet"


def snapshot_preferences(
    loop: LoopFolder, round_key: str, prompts: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Usable labels of all rounds up to this one, split for training (schema PREFERENCES), and counts by split.

    Imported judgments can be about any prompt; those about prompts of the test split are left out.
    """
    labels = loop.table_of_rounds("preference_labels", round_key)
    comparisons = loop.table_of_rounds("preference_batch", round_key)
    test = comparisons["prompt_id"].isin(prompts.loc[prompts["split"] == "test", "prompt_id"])
    kept = labels[~labels["comparison_id"].isin(comparisons.loc[test, "comparison_id"])]
    frame, summary = build_preferences(kept, comparisons, loop.config.labeling, seed=loop.config.seed)
    return frame, summary | {"on_test_prompts": len(labels) - len(kept)}
