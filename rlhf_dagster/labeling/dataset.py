"""The preference data set: the labels of all rounds as targets for the reward model, split so that nothing leaks."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rlhf_dagster.common.batches import batches
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.labeling.splits import HELD_OUT_ANNOTATORS, Place, in_validation_split, of_people, split_labels
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.machines import is_person
from rlhf_dagster.records.outcome import deciding_axis, target
from rlhf_dagster.records.schemas import PREFERENCES, table
from rlhf_dagster.records.tables import Row, frame_of, records, table_of

TRAINED_ROLES = ("label", "challenger")
"""Roles of comparisons that are trained on. The others (gold, repeat, drift) only measure the annotators."""
_OF_COMPARISON = ("prompt_id", "prompt", "messages", "responses", "policy_ids", "token_ids", "tokenizers")
_AT_ONCE = 5000


def build_preferences(
    labels: pd.DataFrame,
    comparisons: pd.DataFrame,
    settings: LabelingSettings,
    seed: int,
    weights: Mapping[str, float] | None = None,
    left_out: Collection[str] = (),
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows of PREFERENCES, sorted by comparison and annotator, and a summary of what went where.

    The summary counts labels, people and comparisons; its ``not_trained_on`` counts the labels that are not in
    ``train`` by reason (:mod:`not_trained_on`).

    ``labels`` and ``comparisons`` hold all rounds so far (columns of LABELS and COMPARISONS); only usable labels of
    purpose ``train`` count. The splits change one thing at a time against training:

    - ``validation`` has other prompts: every label of a share of the prompts, or of the comparisons
      (``settings.validation_by``), drawn by a hash.
    - ``held_out_annotators`` has other people: labels by the people held out, on prompts that are trained on, of
      comparisons that are not. They are the same people in every round as long as nobody joins. Nobody whose labels
      are most of a round's is among them, nor so many that nothing is left to train on; of a few people, one is held
      out only where that leaves enough (:func:`~rlhf_dagster.labeling.splits.split_labels`). ``holding_out`` in the
      summary says what it costs.
    - ``train``: the rest, without any label of a held-out person and without any comparison of the split above.

    Where many people judge each comparison, those held out touch most comparisons, and keeping all of these from
    training would leave little. So at most the share ``settings.held_out_annotators`` of a round's comparisons is kept
    out, drawn by a hash; on the others only the held-out people's own labels are dropped. Two comparisons of the same
    texts, such as the two orders of one, are one here.

    A source that stands for unknown annotators is nobody who could be held out; its labels are split like people's
    otherwise. Annotators that are machines are never held out, and their labels are in ``train`` alone, except where
    every label is a machine's.

    ``weights`` multiply the weight of an annotator's labels (1 for anybody not named; 0 leaves them out), and the
    labels of the annotators ``left_out`` are dropped. Both apply to ``train`` alone: the effect of
    leaving people out can be measured only on splits that it does not change. Raises ValueError for a weight that is
    negative or not finite.
    """
    weights = weights or {}
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()):
        raise ValueError("weights of annotators must be finite and not negative")
    unwanted = set(left_out) | {name for name, weight in weights.items() if weight == 0}
    usable = usable_labels(labels)
    usable = usable[usable["purpose"] == "train"]
    trained = comparisons.loc[comparisons["role"].isin(TRAINED_ROLES), "comparison_id"]
    usable = usable[usable["comparison_id"].isin(trained)]
    asked = _asked(comparisons, settings, seed)
    given = _given(usable)
    about = [asked[comparison] for comparison in usable["comparison_id"]]
    contents = [one.content for one in about]
    found = split_labels(given, contents, [one.in_validation for one in about], unwanted, settings, seed)
    rows = _kept_rows(usable, asked, found.places, weights, settings.rating_axes)
    summary = _summary(given, contents, found.places, unwanted) | {
        "annotators_held_out": len(found.held_out),
        "comparisons_held_out": len(found.kept_out),
        "holding_out": found.cost,
    }
    return frame_of(table_of(rows, PREFERENCES)), summary


class _Asked(NamedTuple):
    """A comparison on the way to the rows of its labels."""

    row: Row
    """Those of its columns that its labels' rows have."""
    content: str
    """A hash of the prompt and the responses, whatever their order."""
    in_validation: bool


def _asked(comparisons: pd.DataFrame, settings: LabelingSettings, seed: int) -> dict[str, _Asked]:
    """The comparisons by id."""
    columns = [name for name in _OF_COMPARISON if name in comparisons.columns]
    ids, rows = comparisons["comparison_id"], records(comparisons[columns])
    contents = [content_hash(row["prompt_id"], sorted(row["responses"])) for row in rows]
    units = [row["prompt_id"] for row in rows] if settings.validation_by == "prompt" else contents
    kept = [in_validation_split(unit, settings.validation, seed) for unit in units]
    return dict(zip(ids, map(_Asked, rows, contents, kept), strict=True))


def _given(usable: pd.DataFrame) -> list[Row]:
    """The round and the annotator of each label; equal texts are one object, since there are few."""
    same: dict[str, str] = {}
    pairs = zip(usable["round"], usable["annotator"], strict=True)
    return [{"round": same.setdefault(key, key), "annotator": same.setdefault(name, name)} for key, name in pairs]


def _kept_rows(
    usable: pd.DataFrame,
    asked: Mapping[str, _Asked],
    places: Sequence[Place],
    weights: Mapping[str, float],
    rating_axes: Sequence[str],
) -> Iterator[Row]:
    """Rows of PREFERENCES of the labels that have a split; few are held at once."""
    splits = np.array([place.split for place in places], dtype=object)
    # Not by label id alone: the order must not depend on which label store gave the ids.
    keys = pa.Table.from_pandas(usable[["comparison_id", "annotator", "label_id"]], preserve_index=False)
    ordered = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]).to_numpy()
    for part in batches(ordered[splits[ordered] != ""], _AT_ONCE):
        labels = records(usable.iloc[part])
        for label, split in zip(labels, splits[part], strict=True):
            weight = weights.get(label["annotator"], 1.0) if split == "train" else 1.0
            row = _row(label, asked[label["comparison_id"]].row, rating_axes)
            yield row | {"split": split, "weight": weight}


def _summary(rows: Sequence[Row], contents: list[str], places: list[Place], unwanted: set[str]) -> dict[str, Any]:
    """Counts of labels by split and by reason, and of who gave them."""
    splits = [place.split for place in places]
    people = {row["annotator"] for row in rows if is_person(row["annotator"])}
    trained = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
    machine = len(trained) - len(of_people(trained))
    return {
        "labels": len(rows),
        "train": splits.count("train"),
        "validation": splits.count("validation"),
        HELD_OUT_ANNOTATORS: splits.count(HELD_OUT_ANNOTATORS),
        "dropped": splits.count(""),
        "annotators": len(people),
        "annotators_left_out": len(unwanted & people),
        "comparisons": len(set(contents)),
        "not_trained_on": dict(Counter(place.reason for place in places if place.reason)),
    } | ({"train_by_machines": machine} if machine else {})


def snapshot_hash(preferences: pd.DataFrame) -> str:
    """SHA-256 of the rows, whatever their order: equal for equal training data, also after a trip through Parquet.

    The tokens drawn are not part of it: their comparison's id stands for them.
    """
    digest = hashlib.sha256()
    found = table(preferences, PREFERENCES).drop_columns(["token_ids", "tokenizers"])
    ordered = pc.sort_indices(found, [("label_id", "ascending")])
    for start in range(0, len(ordered), _AT_ONCE):
        for row in found.take(ordered.slice(start, _AT_ONCE)).to_pylist():
            digest.update(json.dumps(_as_hashed(row), sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _as_hashed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without messages where there are none: hashes of data sets without this column are on record."""
    return {name: value for name, value in row.items() if name != "messages" or value is not None}


def _row(label: Mapping[str, Any], comparison: Mapping[str, Any], rating_axes: Sequence[str]) -> dict[str, Any]:
    return {
        "label_id": label["label_id"],
        "comparison_id": label["comparison_id"],
        "round": label["round"],
        "kind": label["kind"],
        "prompt_id": comparison["prompt_id"],
        "prompt": comparison["prompt"],
        "messages": comparison.get("messages"),
        "responses": comparison["responses"],
        "policy_ids": comparison["policy_ids"],
        "ranks": label["ranks"],
        "target": target(label["ranks"]),
        "annotator": label["annotator"],
        "strength": label["strength"],
        "ratings": _ratings(label, rating_axes),
        "token_ids": comparison.get("token_ids"),
        "tokenizers": comparison.get("tokenizers"),
    }


def _ratings(label: Mapping[str, Any], rating_axes: Sequence[str]) -> list[int] | None:
    """The ratings that gave a label its ranks."""
    axes = json.loads(label["axes"]) if label["kind"] == "rating" and label["axes"] else {}
    return axes[deciding_axis(axes, rating_axes)] if axes else None
