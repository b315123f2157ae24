"""Comparisons out, labels in, and the snapshot a reward model trains on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.judge.asking import Judge
from rlhf_dagster.labeling.comparisons import build_ab_comparisons
from rlhf_dagster.labeling.dataset import TRAINED_ROLES, build_preferences, snapshot_hash
from rlhf_dagster.labeling.machine import MachineWork, judge_round, without_people
from rlhf_dagster.labeling.not_trained_on import (
    MEASURES_PEOPLE,
    SKIPPED,
    TEST_PROMPT,
    UNDECIDED,
    UNREADABLE,
    not_trained_on_sentence,
    reasons_in_order,
)
from rlhf_dagster.labeling.parse import count_labels, labels_table, usable_labels
from rlhf_dagster.labeling.quality.competence import label_weights
from rlhf_dagster.labeling.quality.label_quality import estimated_competence, measure_quality
from rlhf_dagster.labeling.simulate import simulate_annotators
from rlhf_dagster.loop.comparisons import training_comparisons
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import imported_table
from rlhf_dagster.records.machines import by_people
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import COMPARISONS, QUARANTINE, table, with_later_columns


@dataclass(frozen=True)
class Batch:
    """The comparisons of a round as the label store has them."""

    comparisons: pd.DataFrame
    sent: int
    already_there: int


def send_training_batch(loop: LoopFolder, round_key: str, completions: pd.DataFrame, progress: Progress) -> Batch:
    """Choose comparisons among the completions and send them; sending again adds nothing."""
    imported = round_key == IMPORT_ROUND
    comparisons = (
        imported_table(loop, "comparisons", COMPARISONS)
        if imported
        else without_people(training_comparisons(loop, round_key, completions), loop.config.labeling.judge)
    )
    return _send(loop, round_key, "train", comparisons, progress)


def send_evaluation_batch(loop: LoopFolder, round_key: str, completions: pd.DataFrame, progress: Progress) -> Batch:
    """A/B comparisons of the new policy against SFT and against the behaviour policy, on test prompts.

    The batch holds this policy's comparisons alone, also where an earlier policy of the round was judged before.
    """
    ids = completions.groupby("role")["policy_id"].first()
    others = list(dict.fromkeys([ids["sft"], ids["behaviour"]]))
    comparisons = build_ab_comparisons(
        completions.drop_duplicates("completion_id").drop(columns="role"),
        [(ids["policy"], other) for other in others],
        loop.config.evaluation.judgments(len(others)),
        round_key,
        seed=loop.config.stage_seed("evaluation_batch", round_key),
    )
    return _send(loop, round_key, "evaluation", comparisons, progress)


def _send(loop: LoopFolder, round_key: str, purpose: str, comparisons: pd.DataFrame, progress: Progress) -> Batch:
    # Imported judgments are given already: they stay in the ledger, and nobody is asked for them again.
    given = round_key == IMPORT_ROUND and purpose == "train"
    store = loop.ledger if given else loop.label_store
    result = store.send(comparisons)
    if loop.config.label_store.simulated_annotators and round_key != IMPORT_ROUND:
        simulate(loop, round_key, purpose, progress)
    if purpose == "train" and round_key != IMPORT_ROUND:
        ask_machine(loop, round_key, progress)
    known = store.comparisons(round_key, purpose)
    # A round is trained on all that was ever sent for it; A/B comparisons of its earlier policies are left out.
    batch = known if purpose == "train" else known[known["comparison_id"].isin(comparisons["comparison_id"])]
    return Batch(batch.reset_index(drop=True), result.sent, result.already_there)


def simulate(loop: LoopFolder, round_key: str, purpose: str, progress: Progress, annotators: int | None = None) -> Any:
    """Let the task's simulated annotators give the labels that are still missing."""
    return simulate_annotators(
        loop.label_store,
        loop.annotators()[:annotators],
        round_key,
        purpose,
        seed=loop.config.stage_seed("annotate", round_key),
        settings=loop.config.labeling,
        progress=progress,
    )


def ask_machine(loop: LoopFolder, round_key: str, progress: Progress) -> MachineWork | None:
    """Have the judge of the settings label its share of a round, as far as it has not; None without a judge.

    Raises UserError where the judge cannot be asked any further; what it said until then is kept.
    """
    settings = loop.config.labeling
    if settings.judge is None:
        return None
    judge = Judge.of(settings.judge, loop.store, f"labels-{round_key}")
    return judge_round(loop.ledger, judge, settings.judge, settings, round_key, progress)


def read_labels(loop: LoopFolder, round_key: str, purpose: str) -> tuple[pd.DataFrame, int]:
    """All versions of all labels (schema LABELS), and how many annotations could not be parsed.

    The latter are kept in ``quarantine/<purpose>-<round>.parquet`` with the reason.
    """
    store = loop.label_store
    annotations = store.annotations(round_key, purpose)
    comparisons = loop.ledger.comparison_rows(round_key, purpose)
    labels, quarantine = labels_table(annotations, comparisons, loop.config.labeling)
    key = _quarantine(round_key, purpose)
    if len(quarantine) or loop.store.exists(key):
        loop.store.put(key, to_parquet(table(quarantine, QUARANTINE)))
    return labels, len(quarantine)


def labels_read(labels: pd.DataFrame) -> dict[str, int]:
    """How far a round's labels (schema LABELS) were read: the last position in the ledger, and the number usable.

    After a training on these labels, those at later positions count as new.
    """
    position = int(labels["position"].max()) if len(labels) and "position" in labels else 0
    return {"position": position, "usable": len(usable_labels(labels))}


@dataclass(frozen=True)
class RoundLabels:
    """What the label store holds of a round's training comparisons, read once."""

    round: str
    labels: pd.DataFrame
    """Schema LABELS."""
    comparisons: pd.DataFrame
    """Schema COMPARISONS."""
    quarantined: int


def read_rounds(loop: LoopFolder, rounds: Sequence[str]) -> list[RoundLabels]:
    """The labels of some rounds as they are now."""
    store = loop.label_store
    return [
        RoundLabels(key, labels, store.comparisons(key, "train"), quarantined)
        for key in rounds
        for labels, quarantined in [read_labels(loop, key, "train")]
    ]


def label_counts(rounds: Sequence[RoundLabels]) -> dict[str, Any]:
    """Counts of the labels of some rounds: totals, and ``by_round`` the same for each.

    ``machine``, where there are any, counts usable labels by machines; the others count as LabelCounts do.
    """
    people: set[str] = set()
    rows = []
    for one in rounds:
        counts = count_labels(one.labels, one.comparisons)
        named = {name: getattr(counts, name) for name in ("comparisons", "labels", "usable", "skipped")}
        named |= {"machine": counts.machine} if counts.machine else {}
        annotators = set(by_people(one.labels)["annotator"])
        rows.append({"round": one.round, **named, "annotators": len(annotators), "quarantined": one.quarantined})
        people |= annotators
    added = ("comparisons", "labels", "usable", "skipped", "quarantined")
    machine = sum(row.get("machine", 0) for row in rows)
    total = {name: sum(row[name] for row in rows) for name in added} | ({"machine": machine} if machine else {})
    return total | {"annotators": len(people), "by_round": rows}


def counts_behind(loop: LoopFolder, round_key: str) -> dict[str, Any]:
    """:func:`label_counts` of the labels that the round's snapshot was made of.

    They are counted anew where none are stated, as by version 0.1, or where those stated are of another snapshot, as
    after a process that was killed between the counts and the table.
    """
    stated, snapshot = loop.json("preference_dataset", round_key), loop.table("preference_dataset", round_key)
    if stated is not None and snapshot is not None and stated["snapshot"] == snapshot_hash(snapshot):
        counts: dict[str, Any] = stated["labels"]
        return counts
    return label_counts(read_rounds(loop, loop.rounds_with("preference_labels", round_key)))


def read_quarantine(loop: LoopFolder, round_key: str, purpose: str) -> pd.DataFrame:
    """What could not be parsed when the round's labels were last read (schema QUARANTINE)."""
    found = loop.table_at(_quarantine(round_key, purpose), "run preference_labels of its round again")
    return table([], QUARANTINE).to_pandas() if found is None else found


def _quarantine(round_key: str, purpose: str) -> str:
    return f"quarantine/{purpose}-{round_key}.parquet"


def annotator_weights(
    labels: pd.DataFrame, comparisons: pd.DataFrame, settings: LabelingSettings
) -> dict[str, float] | None:
    """The weight of each annotator's labels, people's with a mean of 1; None where all count the same."""
    judge, weights = settings.judge, None
    if settings.weights != "equal":
        weights = label_weights(estimated_competence(labels, comparisons), settings.responses)
    if judge is None or judge.weight == 1:
        return weights
    return (weights or {}) | {judge.annotator: judge.weight}


def flagged(labels: pd.DataFrame, comparisons: pd.DataFrame, settings: LabelingSettings) -> list[str]:
    """The annotators whose labels the settings leave out of training: nobody, or those flagged for review."""
    return [] if settings.leave_out == "nobody" else measure_quality(labels, comparisons)[1]["review"]


def snapshot_preferences(
    loop: LoopFolder,
    round_key: str,
    labels: pd.DataFrame,
    comparisons: pd.DataFrame,
    prompts: pd.DataFrame,
    left: Collection[str] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Usable labels of all rounds up to this one, split for training (schema PREFERENCES), and counts by split.

    ``labels`` and ``comparisons`` are this round's. Those of earlier rounds, but for the rounds ``left``, come from the
    label store as they are now, with late and edited labels and without deleted ones. Imported judgments can be about
    any prompt; those about prompts of the test split are left out. Beside the table are written the
    :func:`label_counts` of what was read, how many usable labels of each round are in no split, and how many labels are
    trained on and are not, by reason. They are not written into it: its bytes are the same for the same rows, so that a
    training of them can go on. Raises UserError, with the reasons, where no label is left to train on.
    """
    if "position" not in labels:
        labels = labels.assign(position=0)  # a table of version 0.1, before labels had positions
    own = RoundLabels(
        round_key, labels, with_later_columns(comparisons, COMPARISONS), len(read_quarantine(loop, round_key, "train"))
    )
    earlier = [key for key in loop.rounds_with("preference_labels", before=round_key) if key not in left]
    read = [*read_rounds(loop, earlier), own]
    # This round's first, as the order of rows decides the order of training.
    labels = pd.concat([one.labels for one in (own, *read[:-1])], ignore_index=True)
    comparisons = pd.concat([one.comparisons for one in (own, *read[:-1])], ignore_index=True)
    test = comparisons["prompt_id"].isin(prompts.loc[prompts["split"] == "test", "prompt_id"])
    kept = labels[~labels["comparison_id"].isin(comparisons.loc[test, "comparison_id"])]
    settings, seed = loop.config.labeling, loop.config.seed
    weights, left_out = annotator_weights(kept, comparisons, settings), flagged(kept, comparisons, settings)
    frame, summary = build_preferences(kept, comparisons, settings, seed, weights=weights, left_out=left_out)
    gone, given = left_out_by_round(labels, comparisons, frame), label_counts(read)
    reasons = reasons_in_order(summary.pop("not_trained_on") | _outside(labels, comparisons, test) | _unusable(given))
    if not summary["train"]:
        raise UserError(
            f"There is no label to train on in {round_key}: {not_trained_on_sentence(0, reasons)} Collect more labels, "
            "or lower `labeling.validation` or `labeling.held_out_annotators`."
        )
    counts = {"snapshot": snapshot_hash(frame), "labels": given, "left_out": gone}
    loop.write_json(
        "preference_dataset", round_key, counts | {"trained_on": summary["train"], "not_trained_on": reasons}
    )
    summary |= {"on_test_prompts": len(labels) - len(kept), "left_out": sum(gone.values()), "not_trained_on": reasons}
    return frame, summary


def kept_from_training(loop: LoopFolder, prompts: pd.DataFrame) -> int:
    """How many comparisons of the imported round, on ``prompts`` outside the test split, no model will be trained on.

    Known before the loop has made anything; 0 where there is no such round.
    """
    labels, _ = read_labels(loop, IMPORT_ROUND, "train")
    comparisons = loop.ledger.comparisons(IMPORT_ROUND, "train")
    test = set(prompts.loc[prompts["split"] == "test", "prompt_id"])
    learned = comparisons[~comparisons["prompt_id"].isin(test)]
    kept = labels[labels["comparison_id"].isin(learned["comparison_id"])]
    frame, _ = build_preferences(kept, learned, loop.config.labeling, loop.config.seed)
    return int(frame.loc[frame["split"] != "train", "comparison_id"].nunique())


def _outside(labels: pd.DataFrame, comparisons: pd.DataFrame, is_test: pd.Series) -> dict[str, int]:
    """Counts of usable labels that :func:`build_preferences` is not shown, or passes over, by reason."""
    usable = usable_labels(labels)
    about = usable["comparison_id"]
    on_test = about.isin(comparisons.loc[is_test, "comparison_id"])
    measuring = about.isin(comparisons.loc[~comparisons["role"].isin(TRAINED_ROLES), "comparison_id"])
    return {TEST_PROMPT: int(on_test.sum()), MEASURES_PEOPLE: int((measuring & ~on_test).sum())}


def _unusable(given: Mapping[str, Any]) -> dict[str, int]:
    """Counts of what annotators gave that is no usable label, from :func:`label_counts`."""
    undecided = given["labels"] - given["usable"]
    return {UNDECIDED: undecided, SKIPPED: given["skipped"], UNREADABLE: given["quarantined"]}


def left_out_by_round(labels: pd.DataFrame, comparisons: pd.DataFrame, snapshot: pd.DataFrame) -> dict[str, int]:
    """How many usable labels of comparisons to learn from are in no split of a snapshot, by their round."""
    learned = comparisons.loc[comparisons["role"].isin(TRAINED_ROLES), "comparison_id"]
    usable = usable_labels(labels)
    gone = usable[usable["comparison_id"].isin(learned) & ~usable["label_id"].isin(snapshot["label_id"])]
    return {str(key): int(n) for key, n in gone["round"].value_counts().sort_index().items()}
