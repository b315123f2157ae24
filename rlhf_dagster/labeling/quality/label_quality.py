"""Quality of labels, in all and for each annotator: agreement, known answers, consistency, habits and speed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import interval_columns, share_with_interval
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.labeling.quality.agreement import Agreement, agreement_of, nominal_alpha, ordinal_alpha
from rlhf_dagster.labeling.quality.checks import (
    ALL,
    MEASURING_ROLES,
    Tallies,
    Tally,
    asked_to_learn,
    drift_answers,
    gold_answers,
    repeated_answers,
    untouched_rankings,
)
from rlhf_dagster.labeling.quality.competence import AnnotatorChoice, competences
from rlhf_dagster.labeling.quality.machines import machine_figures
from rlhf_dagster.labeling.quality.position import first_position
from rlhf_dagster.labeling.quality.review import AnnotatorFigures, review
from rlhf_dagster.labeling.quality.sources import source_figures
from rlhf_dagster.labeling.quality.unknown import not_known
from rlhf_dagster.records.machines import by_people, without_machines
from rlhf_dagster.records.outcome import best
from rlhf_dagster.records.schemas import QUALITY, table
from rlhf_dagster.records.tables import records

DEMONSTRATION_POLICY = "demonstration"
"""Policy id of the responses that people wrote, in comparisons with the SFT policy (role drift)."""
REASONS_SHOWN = 10


@dataclass(frozen=True)
class _Measured:
    """What the figures of people are computed from: labels, tallies by annotator, and estimated competence."""

    submitted: pd.DataFrame
    """The last version of every annotation that is no skip, `cannot decide` included."""
    judged: pd.DataFrame
    """Usable labels but those of gold questions, repeats and drift guards, with ``top`` (best responses) and ``k``."""
    decided: pd.DataFrame
    """The judged labels with a single best response."""
    agreement: Agreement
    """Of decided labels: ties left out."""
    gold: Tallies
    repeats: Tallies
    untouched: Tallies
    drift: Tally
    skill: Mapping[str, float]


def measure_quality(
    labels: pd.DataFrame, comparisons: pd.DataFrame, quarantine: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row of QUALITY for each annotator who is a person, and a summary of all labels by people.

    The tables have the columns of LABELS, COMPARISONS and QUARANTINE. A label is *decided* if it names a single best
    response. ``agreement`` is the share of pairs of decided labels, of one comparison by two people, that name the same
    response; ``agreement_with_ties`` that of pairs of usable labels that name the same best responses, where a tie
    agrees with the same tie alone. Gold questions, repeats and drift guards count for the figures they are asked for,
    for pace and for the number of labels, and for nothing else.

    The summary holds counts (``comparisons``; those ``overlapping``, with two or more usable labels; ``labels``,
    ``usable``, ``skipped``, ``annotators``; ``undecided``, which are ``ties`` at the top and ``cannot_decide``);
    ``agreement``, ``agreement_with_ties``, ``alpha``, ``alpha_ordinal``, ``first_position``, ``gold``,
    ``consistency``, ``untouched_rankings`` and ``drift`` with ``value``, ``low``, ``high`` and ``n``, or None without
    data; what ``first_position`` would be by ``chance``; ``not_known``, why figures are None or rest on a part of the
    labels (:func:`not_known`); ``flags`` (how often each was set); ``quarantined`` by reason; whom to ``review``;
    ``sources``, the figures of files that do not say who gave their labels (:func:`source_figures`), which are counted,
    and are in no figure that needs to know who gave which label; and ``machines``, the figures of annotators that are
    machines (:func:`machine_figures`), which nothing else counts.
    """
    machines = machine_figures(labels, comparisons)
    everybody, people = without_machines(labels), by_people(labels)
    measured = _measure(people, comparisons)
    rows = [_annotator_row(figures, measured) for figures in _figures(people, measured)]
    given, usable = _submitted(everybody), usable_labels(everybody)
    judged = _judged(usable, comparisons)
    problems = pd.Series(dtype=str) if quarantine is None else quarantine["problem"]
    flags = given["flags"].explode().dropna().value_counts()
    summary = {
        "comparisons": len(comparisons),
        **_counts(everybody, given, len(usable)),
        "annotators": len(rows),
        "overlapping": int((measured.judged.groupby("comparison_id").size() >= 2).sum()),
        "agreement": measured.agreement.everybody,
        "agreement_with_ties": agreement_of(measured.judged).everybody,
        "alpha": nominal_alpha(measured.judged),
        "alpha_ordinal": ordinal_alpha(measured.judged),
        "first_position": first_position(judged),
        "gold": _rate(measured.gold[ALL]),
        "consistency": _rate(measured.repeats[ALL]),
        "untouched_rankings": _rate(measured.untouched[ALL]),
        "drift": _rate(measured.drift),
        "not_known": not_known(given, judged),
        "flags": {str(name): int(n) for name, n in flags.items()},
        "quarantined": {str(reason): int(n) for reason, n in problems.value_counts().head(REASONS_SHOWN).items()},
        "review": [row["annotator"] for row in rows if row["review"]],
        "sources": source_figures(judged),
        "machines": machines,
    }
    return table(rows, QUALITY).to_pandas(), summary


def estimated_competence(labels: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, float]:
    """The estimated probability that each person names the best response; empty where nobody can be compared."""
    return dict(_measure(by_people(labels), comparisons).skill)


def _counts(labels: pd.DataFrame, submitted: pd.DataFrame, usable: int) -> dict[str, int]:
    """Counts of labels; `cannot decide` and a tie at the top are undecided alike, and are counted apart too."""
    undecided, ties = int(submitted["ranks"].map(_is_undecided).sum()), int(submitted["ranks"].map(_is_tie).sum())
    skipped = int((labels["latest"] & (labels["status"] == "skipped")).sum())
    counts = {"labels": len(submitted), "usable": usable, "undecided": undecided, "skipped": skipped}
    return counts | {"ties": ties, "cannot_decide": undecided - ties}


def _submitted(labels: pd.DataFrame) -> pd.DataFrame:
    """The last version of every annotation that is no skip, one for an annotator and comparison."""
    submitted = labels[labels["latest"] & (labels["status"] == "submitted")]
    return submitted.drop_duplicates(["comparison_id", "annotator"], keep="last")


def _judged(usable: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Usable labels but those of comparisons that measure annotators."""
    measuring = comparisons.loc[comparisons["role"].isin(MEASURING_ROLES), "comparison_id"]
    return usable[~usable["comparison_id"].isin(measuring)]


def _measure(labels: pd.DataFrame, comparisons: pd.DataFrame) -> _Measured:
    usable = usable_labels(labels)
    tops = [tuple(best(ranks)) for ranks in usable["ranks"]]
    usable = usable.assign(top=pd.Series(tops, usable.index, dtype=object), k=usable["ranks"].map(len))
    judged = _judged(usable, comparisons)
    decided = judged[judged["top"].map(len) == 1]
    rows = asked_to_learn(comparisons, usable)
    measuring = usable[usable["comparison_id"].isin(rows.keys())]
    gold = {name: best(row["gold_ranks"]) for name, row in rows.items() if row["role"] == "gold"}
    single = usable[usable["top"].map(len) == 1]
    choices = [
        AnnotatorChoice(comparison, annotator, top[0], k)
        for comparison, annotator, top, k in zip(
            *(single[name] for name in ("comparison_id", "annotator", "top", "k")), strict=True
        )
    ]
    return _Measured(
        submitted=_submitted(labels),
        judged=judged,
        decided=decided,
        agreement=agreement_of(decided),
        gold=gold_answers(measuring, rows),
        repeats=repeated_answers(measuring, rows),
        untouched=untouched_rankings(measuring, rows),
        drift=drift_answers(measuring, rows, DEMONSTRATION_POLICY),
        skill=competences(choices, {name: known[0] for name, known in gold.items() if len(known) == 1}),
    )


def _figures(labels: pd.DataFrame, measured: _Measured) -> list[dict[str, Any]]:
    """Counts and times of each annotator, sorted by name."""
    latest, submitted = labels[labels["latest"]], measured.submitted
    marked = submitted.assign(
        flagged=submitted["flags"].map(lambda flags: flags is not None and len(flags) > 0),
        undecided=submitted["ranks"].map(_is_undecided),
        tied=submitted["ranks"].map(_is_tie),
    )
    given = marked.groupby("annotator", sort=True).agg(
        labels=("label_id", "size"),
        seconds=("seconds", "median"),
        flagged=("flagged", "sum"),
        undecided=("undecided", "sum"),
        tied=("tied", "sum"),
    )
    skipped = (latest["status"] == "skipped").groupby(latest["annotator"]).sum().rename("skipped")
    shown = measured.decided[measured.decided["chosen_position"].notna()]
    choices = shown.assign(first=shown["chosen_position"] == 0, chance=1 / shown["k"]).groupby("annotator")
    chosen = choices.agg(shown=("label_id", "size"), first=("first", "sum"), chance=("chance", "mean"))
    return records(given.join(skipped).join(chosen).fillna({"skipped": 0, "shown": 0, "first": 0}).reset_index())


def _pace(seconds: float, usual: float) -> float:
    """A median time as a share of the usual one; NaN where answers take no time, as when a program gives them."""
    return seconds / usual if usual > 0 else math.nan


def _annotator_row(figures: dict[str, Any], measured: _Measured) -> dict[str, Any]:
    name, labels = figures["annotator"], int(figures["labels"])
    own = measured.agreement.own.get(name)
    own_gold, all_gold = measured.gold[name], measured.gold[ALL]
    gold, repeats = _rate(own_gold), _rate(measured.repeats[name])
    untouched = _rate(measured.untouched[name])
    first, others_first = _first_positions(figures, measured.decided)
    found = AnnotatorFigures(
        labels=labels,
        pace=_pace(figures["seconds"], measured.submitted["seconds"].median()),
        agreement=own,
        others_agreement=measured.agreement.others.get(name),
        first_position=first,
        others_first=others_first,
        gold=gold,
        others_gold=share_with_interval(all_gold.so - own_gold.so, all_gold.n - own_gold.n),
        consistency=repeats,
        untouched=untouched,
    )
    return {
        "annotator": name,
        "labels": labels,
        "share_undecided": figures["undecided"] / labels,
        "share_skipped": figures["skipped"] / (labels + figures["skipped"]),
        "share_flagged": figures["flagged"] / labels,
        "share_tied": figures["tied"] / labels,
        **interval_columns(own, "agreement"),
        "agreement_n": own["n"] if own else 0,
        **interval_columns(gold, "gold_accuracy", "gold"),
        "gold_n": own_gold.n,
        **interval_columns(repeats, "consistency"),
        "consistency_n": measured.repeats[name].n,
        **interval_columns(first, "first_position_share", "first_position"),
        "chance_first": first["chance"] if first else None,
        "share_untouched": untouched and untouched["value"],
        "median_seconds": figures["seconds"],
        "competence": measured.skill.get(name),
        "review": review(found),
    }


def _first_positions(figures: dict[str, Any], decided: pd.DataFrame) -> tuple[dict[str, Any] | None, ...]:
    """How often an annotator chose the first response shown, with its ``chance``; and how often the others did."""
    first, shown = int(figures["first"]), int(figures["shown"])
    positions = decided["chosen_position"]
    found = share_with_interval(first, shown)
    others = share_with_interval(int((positions == 0).sum()) - first, int(positions.notna().sum()) - shown)
    return found and found | {"chance": float(figures["chance"])}, others


def _rate(tally: Tally) -> dict[str, Any] | None:
    return share_with_interval(tally.so, tally.n)


def _is_undecided(ranks: Any) -> bool:
    """Whether a label names no single best response."""
    return ranks is None or isinstance(ranks, float) or len(best(ranks)) != 1


def _is_tie(ranks: Any) -> bool:
    """Whether a label names several best responses."""
    return not (ranks is None or isinstance(ranks, float)) and len(best(ranks)) > 1
