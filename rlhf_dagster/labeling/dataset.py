"""The preference data set: the labels of all rounds as targets for the reward model, split so that nothing leaks."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.not_trained_on import (
    HELD_OUT_COMPARISON,
    HELD_OUT_PERSON,
    HELD_OUT_PROMPT,
    KEPT_COMPARISON,
    LEFT_OUT_PERSON,
)
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.records.ids import content_hash, split_of
from rlhf_dagster.records.machines import is_machine
from rlhf_dagster.records.outcome import deciding_axis, target
from rlhf_dagster.records.schemas import PREFERENCES, table
from rlhf_dagster.records.tables import records

MIN_ANNOTATORS = 3
"""With fewer people than this nobody is held out: too little would be left to learn from."""
HELD_OUT_ANNOTATORS = "held_out_annotators"
TRAINED_ROLES = ("label", "challenger")
"""Roles of comparisons that are trained on. The others (gold, repeat, drift) only measure the annotators."""


class _Place(NamedTuple):
    """Where a label goes."""

    split: str
    """Empty where it is in none."""
    reason: str = ""
    """Why it is not trained on."""


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
      are most of a round's is among them, nor so many that nothing is left to train on.
    - ``train``: the rest, without any label of a held-out person and without any comparison of the split above.

    Where many people judge each comparison, those held out touch most comparisons, and keeping all of these from
    training would leave little. So at most the share ``settings.held_out_annotators`` of a round's comparisons is kept
    out, drawn by a hash; on the others only the held-out people's own labels are dropped. Two comparisons of the same
    texts, such as the two orders of one, are one here.

    Annotators that are machines are never held out, and their labels are in ``train`` alone, except where no label is a
    person's.

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
    details = {row["comparison_id"]: row for row in records(comparisons)}
    rows = [_row(label, details[label["comparison_id"]], settings.rating_axes) for label in records(usable)]
    contents = [_content(row) for row in rows]
    units = [row["prompt_id"] for row in rows] if settings.validation_by == "prompt" else contents
    in_validation = [_is_validation(unit, settings.validation, seed) for unit in units]
    held_out, kept_out, places = _places(rows, contents, in_validation, unwanted, settings, seed)
    places = _without_machines(rows, places)
    splits = [place.split for place in places]
    kept = [row | {"split": split} for row, split in zip(rows, splits, strict=True) if split]
    for row in kept:
        row["weight"] = weights.get(row["annotator"], 1.0) if row["split"] == "train" else 1.0
    # Not by label id alone: the order must not depend on which label store gave the ids.
    kept.sort(key=lambda row: (row["comparison_id"], row["annotator"], row["label_id"]))
    summary = _summary(rows, contents, places, unwanted) | {
        "annotators_held_out": len(held_out),
        "comparisons_held_out": len(kept_out),
    }
    return table(kept, PREFERENCES).to_pandas(), summary


def _summary(
    rows: Sequence[Mapping[str, Any]], contents: list[str], places: list[_Place], unwanted: set[str]
) -> dict[str, Any]:
    """Counts of labels by split and by reason, and of who gave them."""
    splits, people = [place.split for place in places], {row["annotator"] for row in _of_people(rows)}
    trained = [row for row, split in zip(rows, splits, strict=True) if split == "train"]
    machine = len(trained) - len(_of_people(trained))
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


def _of_people(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if not is_machine(row["annotator"])]


def _without_machines(rows: Sequence[Mapping[str, Any]], places: list[_Place]) -> list[_Place]:
    """``places`` in which machines' labels measure nothing, so that accuracy is about what people prefer.

    Where no label is a person's, a machine's are all there is to measure on.
    """
    if not _of_people(rows):
        return places
    pairs = zip(rows, places, strict=True)
    return [place._replace(split="") if _measures(row, place) else place for row, place in pairs]


def _measures(row: Mapping[str, Any], place: _Place) -> bool:
    """Whether a machine's label would be measured on."""
    return place.split != "train" and is_machine(row["annotator"])


def _places(
    rows: Sequence[Mapping[str, Any]],
    contents: list[str],
    in_validation: list[bool],
    unwanted: set[str],
    settings: LabelingSettings,
    seed: int,
) -> tuple[set[str], set[str], list[_Place]]:
    """Who is held out, which contents are kept from training for it, and where each row goes.

    The last of the people drawn are not held out where otherwise no label would be left to train on.
    """
    people, rounds = _of_people(rows), [row["round"] for row in rows]
    names = sorted({row["annotator"] for row in people})
    share, measured = settings.held_out_annotators, _MEASURED_ON[settings.validation_by]
    drawn = held_out_annotators(names, share, seed, trained_on=leading_annotators(people))
    while True:
        held_out = set(drawn)
        by_held_out = [row["annotator"] in held_out for row in rows]
        touched = [held and not validation for held, validation in zip(by_held_out, in_validation, strict=True)]
        kept_out = _kept_out(rounds, contents, touched, share=share, seed=seed)
        places = [
            measured if validation else _place(held, content in kept_out, row["annotator"] in unwanted)
            for row, validation, held, content in zip(rows, in_validation, by_held_out, contents, strict=True)
        ]
        if not drawn or any(place.split == "train" for place in places):
            return held_out, kept_out, places
        drawn = drawn[:-1]


def leading_annotators(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Those who gave more than half of a round's labels; ``rows`` have a round and an annotator."""
    given: dict[str, Counter[str]] = {}
    for row in rows:
        given.setdefault(row["round"], Counter())[row["annotator"]] += 1
    return {name for counts in given.values() for name, n in counts.items() if n > counts.total() / 2}


def held_out_annotators(names: list[str], share: float, seed: int, trained_on: Collection[str] = ()) -> list[str]:
    """The people never trained on: the rounded ``share`` of ``names`` with the smallest hash, at least one.

    Nobody if ``share`` is 0 or there are fewer than three people. Those in ``trained_on`` are not among them, and
    nobody is drawn in their place. The first drawn come first.
    """
    if share == 0 or len(names) < MIN_ANNOTATORS:
        return []
    ranked = sorted(names, key=lambda name: content_hash("held-out annotator", seed, name))
    return [name for name in ranked[: max(1, round(share * len(names)))] if name not in trained_on]


def snapshot_hash(preferences: pd.DataFrame) -> str:
    """SHA-256 of the rows, whatever their order: equal for equal training data, also after a trip through Parquet.

    The tokens drawn are not part of it: their comparison's id stands for them.
    """
    digest = hashlib.sha256()
    rows = table(preferences, PREFERENCES).drop_columns(["token_ids", "tokenizers"]).to_pylist()
    for row in sorted(rows, key=lambda row: row["label_id"]):
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


_MEASURED_ON = {
    "prompt": _Place("validation", HELD_OUT_PROMPT),
    "comparison": _Place("validation", HELD_OUT_COMPARISON),
}


def _place(held_out: bool, kept_out: bool, unwanted: bool) -> _Place:
    """Where a label goes that is not about what is kept for validation."""
    if held_out:
        return _Place(HELD_OUT_ANNOTATORS if kept_out else "", HELD_OUT_PERSON)
    if kept_out:
        return _Place("", KEPT_COMPARISON)
    return _Place("", LEFT_OUT_PERSON) if unwanted else _Place("train")


def _is_validation(unit: str, share: float, seed: int) -> bool:
    # The prefix makes this hash differ from that of the prompts' split, which is the same for all sampled prompts.
    return split_of(f"preferences/{seed}/{unit}", validation=share, test=0) == "validation"


def _kept_out(rounds: list[str], contents: list[str], touched: list[bool], *, share: float, seed: int) -> set[str]:
    """The contents that no training label may be about: of those ``touched``, at most ``share`` of each round's.

    The lists describe one label each: its round, what it is about, and whether a held-out person gave it.
    """
    judged: dict[str, set[str]] = {}
    candidates: dict[str, set[str]] = {}
    for round_key, content, is_touched in zip(rounds, contents, touched, strict=True):
        judged.setdefault(round_key, set()).add(content)
        if is_touched:
            candidates.setdefault(round_key, set()).add(content)
    kept_out: set[str] = set()
    for round_key, ids in candidates.items():
        ranked = sorted(ids, key=lambda content: content_hash("held-out comparison", seed, content))
        kept_out.update(ranked[: math.ceil(share * len(judged[round_key]))])
    return kept_out


def _content(row: Mapping[str, Any]) -> str:
    """A hash of the prompt and the responses, whatever their order."""
    return content_hash(row["prompt_id"], sorted(row["responses"]))
