"""Where each label of a data set goes: to training, to the labels that a reward model is measured on, or nowhere."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.not_trained_on import (
    HELD_OUT_COMPARISON,
    HELD_OUT_PERSON,
    HELD_OUT_PROMPT,
    KEPT_COMPARISON,
    LEFT_OUT_PERSON,
)
from rlhf_dagster.records.ids import content_hash, split_of
from rlhf_dagster.records.machines import is_machine, is_person

MIN_ANNOTATORS = 3
"""With fewer people than this nobody is held out: too little would be left to learn from."""
HELD_OUT_ANNOTATORS = "held_out_annotators"
MOST_COST = 2.0
"""Most labels that holding out one person alone may keep from training, in units of the share of people held out.

Where everybody judges everything, exactly that share of the people, s, costs s of the labels and, on the comparisons
kept for them, s of the others': 2 s - s^2.
"""
_Rows = Sequence[Mapping[str, Any]]
"""Labels, each with its round and annotator."""


class Place(NamedTuple):
    """Where a label goes."""

    split: str
    """Empty where it is in none."""
    reason: str = ""
    """Why it is not trained on."""


@dataclass(frozen=True)
class Splits:
    """Where the labels of a data set go."""

    places: list[Place]
    """One for each label."""
    held_out: set[str]
    """The people held out."""
    kept_out: set[str]
    """The contents of comparisons that nothing is trained on for it."""
    cost: str
    """What holding people out costs, for people; empty where the settings hold nobody out."""


def split_labels(
    rows: _Rows,
    contents: list[str],
    in_validation: list[bool],
    unwanted: set[str],
    settings: LabelingSettings,
    seed: int,
) -> Splits:
    """Where each of ``rows`` goes; ``contents`` says what it is about, and ``in_validation`` that this is kept.

    The last of the people drawn are not held out where otherwise no label would be left to train on, and one person
    alone, as of a team of three, only where that costs at most ``MOST_COST`` times the share asked for.
    """
    people, share = of_people(rows), settings.held_out_annotators
    names = sorted({row["annotator"] for row in people if is_person(row["annotator"])})
    drawn = held_out_annotators(names, share, seed, trained_on=leading_annotators(people))
    refused = ""
    while True:
        splits = _splits(rows, contents, in_validation, set(drawn), unwanted, settings, seed)
        lost, labels = _cost(splits.places)
        if drawn and not any(place.split == "train" for place in splits.places):
            drawn = drawn[:-1]
        elif len(drawn) == 1 and lost > MOST_COST * share * labels:
            drawn, refused = [], _refused(len(names), lost, labels, share)
        else:
            cost = refused or _told(splits, len(names), lost, labels)
            return Splits(_without_machines(rows, splits.places), splits.held_out, splits.kept_out, cost)


def of_people(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The labels that are not by machines."""
    return [row for row in rows if not is_machine(row["annotator"])]


def in_validation_split(unit: str, share: float, seed: int) -> bool:
    """Whether a prompt or a comparison is kept from training."""
    # The prefix makes this hash differ from that of the prompts' split, which is the same for all sampled prompts.
    return split_of(f"preferences/{seed}/{unit}", validation=share, test=0) == "validation"


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


def _splits(
    rows: _Rows,
    contents: list[str],
    in_validation: list[bool],
    held_out: set[str],
    unwanted: set[str],
    settings: LabelingSettings,
    seed: int,
) -> Splits:
    """Where the rows go if these people are held out."""
    share, measured = settings.held_out_annotators, _MEASURED_ON[settings.validation_by]
    by_held_out = [row["annotator"] in held_out for row in rows]
    touched = [held and not validation for held, validation in zip(by_held_out, in_validation, strict=True)]
    kept_out = _kept_out([row["round"] for row in rows], contents, touched, share=share, seed=seed)
    places = [
        measured if validation else _place(held, content in kept_out, row["annotator"] in unwanted)
        for row, validation, held, content in zip(rows, in_validation, by_held_out, contents, strict=True)
    ]
    return Splits(places, held_out, kept_out, "")


def _cost(places: Sequence[Place]) -> tuple[int, int]:
    """How many labels are not trained on because people are held out, and of how many that are not for validation."""
    reasons = Counter(place.reason for place in places)
    kept = reasons[HELD_OUT_PROMPT] + reasons[HELD_OUT_COMPARISON]
    return reasons[HELD_OUT_PERSON] + reasons[KEPT_COMPARISON], len(places) - kept


def _told(splits: Splits, people: int, lost: int, labels: int) -> str:
    if not splits.held_out:
        return ""
    own = sum(place.reason == HELD_OUT_PERSON for place in splits.places)
    verb = "is" if len(splits.held_out) == 1 else "are"
    return (
        f"{len(splits.held_out):,} of {people:,} annotators {verb} held out, which costs {lost:,} of {labels:,} labels "
        f"({lost / labels:.0%}): {own:,} of theirs, and {lost - own:,} by others on the comparisons kept for them."
    )


def _refused(people: int, lost: int, labels: int, share: float) -> str:
    return (
        f"Nobody is held out: one of {people:,} annotators would cost {lost:,} of {labels:,} labels "
        f"({lost / labels:.0%}), more than twice the share of `labeling.held_out_annotators` ({share:.0%})."
    )


def _without_machines(rows: _Rows, places: list[Place]) -> list[Place]:
    """``places`` in which machines' labels measure nothing, so that accuracy is about what people prefer.

    Where no label is a person's, a machine's are all there is to measure on.
    """
    if not of_people(rows):
        return places
    pairs = zip(rows, places, strict=True)
    return [place._replace(split="") if _measures(row, place) else place for row, place in pairs]


def _measures(row: Mapping[str, Any], place: Place) -> bool:
    """Whether a machine's label would be measured on."""
    return place.split != "train" and is_machine(row["annotator"])


_MEASURED_ON = {
    "prompt": Place("validation", HELD_OUT_PROMPT),
    "comparison": Place("validation", HELD_OUT_COMPARISON),
}


def _place(held_out: bool, kept_out: bool, unwanted: bool) -> Place:
    """Where a label goes that is not about what is kept for validation."""
    if held_out:
        return Place(HELD_OUT_ANNOTATORS if kept_out else "", HELD_OUT_PERSON)
    if kept_out:
        return Place("", KEPT_COMPARISON)
    return Place("", LEFT_OUT_PERSON) if unwanted else Place("train")


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
