"""Quality of labels, in all and for each annotator: agreement, known answers, consistency, habits and speed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import interval_columns, share_with_interval
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.labeling.quality.agreement import agreeing_pairs, nominal_alpha, ordinal_alpha
from rlhf_dagster.labeling.quality.checks import (
    ALL,
    MEASURING_ROLES,
    Tallies,
    Tally,
    drift_answers,
    gold_answers,
    repeated_answers,
    untouched_rankings,
)
from rlhf_dagster.labeling.quality.competence import AnnotatorChoice, competences
from rlhf_dagster.labeling.quality.machines import machine_figures
from rlhf_dagster.labeling.quality.review import AnnotatorFigures, review
from rlhf_dagster.records.machines import by_people
from rlhf_dagster.records.outcome import best
from rlhf_dagster.records.schemas import QUALITY, table
from rlhf_dagster.records.tables import records

DEMONSTRATION_POLICY = "demonstration"
"""Policy id of the responses that people wrote, in comparisons with the SFT policy (role drift)."""
REASONS_SHOWN = 10


@dataclass(frozen=True)
class _Measured:
    """What the figures are computed from: labels, tallies by annotator, and estimated competence."""

    submitted: pd.DataFrame
    """The last version of every annotation that is no skip, `cannot decide` included."""
    judged: pd.DataFrame
    """Usable labels but those of gold questions, repeats and drift guards, with ``top`` (best responses) and ``k``."""
    decided: pd.DataFrame
    """The judged labels with a single best response."""
    pairs: Tallies
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
    response. Agreement is the share of pairs of decided labels, of one comparison by two people, that name the same
    response. Its Wilson interval takes the pairs as independent; pairs that share a label are not quite, so the
    interval is somewhat too narrow where many people judge the same comparison. Gold questions, repeats and drift
    guards count for the figures they are asked for, for pace and for the number of labels, and for nothing else.

    The summary holds counts (``comparisons``; those ``overlapping``, with two or more usable labels; ``labels``,
    ``usable``, ``undecided``, ``skipped``, ``annotators``); ``agreement``, ``alpha``, ``alpha_ordinal``,
    ``first_position``, ``gold``, ``consistency``, ``untouched_rankings`` and ``drift`` with ``value``, ``low``,
    ``high`` and ``n``, or None without data; what ``first_position`` would be by ``chance``; ``flags`` (how often each
    was set); ``quarantined`` by reason; whom to ``review``; and ``machines``, the figures of annotators that are
    machines (:func:`machine_figures`), which nothing else counts.
    """
    machines = machine_figures(labels, comparisons)
    labels = by_people(labels)
    measured = _measure(labels, comparisons)
    judged, decided, submitted = measured.judged, measured.decided, measured.submitted
    rows = [_annotator_row(figures, measured) for figures in _figures(labels, submitted, decided)]
    overlapping = judged.groupby("comparison_id").size() if len(judged) else pd.Series(dtype=int)
    problems = pd.Series(dtype=str) if quarantine is None else quarantine["problem"]
    flags = submitted["flags"].explode().dropna().value_counts()
    summary = {
        "comparisons": len(comparisons),
        "labels": len(submitted),
        "usable": len(usable_labels(labels)),
        "undecided": int(submitted["ranks"].map(_is_undecided).sum()),
        "skipped": int((labels["latest"] & (labels["status"] == "skipped")).sum()),
        "annotators": len(rows),
        "overlapping": int((overlapping >= 2).sum()),
        "agreement": _rate(measured.pairs[ALL]),
        "alpha": nominal_alpha(judged),
        "alpha_ordinal": ordinal_alpha(judged),
        "first_position": _first_position(
            int((decided["chosen_position"] == 0).sum()), len(decided), (1 / decided["k"]).mean()
        ),
        "gold": _rate(measured.gold[ALL]),
        "consistency": _rate(measured.repeats[ALL]),
        "untouched_rankings": _rate(measured.untouched[ALL]),
        "drift": _rate(measured.drift),
        "flags": {str(name): int(n) for name, n in flags.items()},
        "quarantined": {str(reason): int(n) for reason, n in problems.value_counts().head(REASONS_SHOWN).items()},
        "review": [row["annotator"] for row in rows if row["review"]],
        "machines": machines,
    }
    return table(rows, QUALITY).to_pandas(), summary


def estimated_competence(labels: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, float]:
    """The estimated probability that each person names the best response; empty where nobody can be compared."""
    return dict(_measure(by_people(labels), comparisons).skill)


def _measure(labels: pd.DataFrame, comparisons: pd.DataFrame) -> _Measured:
    submitted = labels[labels["latest"] & (labels["status"] == "submitted")]
    submitted = submitted.drop_duplicates(["comparison_id", "annotator"], keep="last")
    usable = usable_labels(labels)
    tops = [tuple(best(ranks)) for ranks in usable["ranks"]]
    usable = usable.assign(top=pd.Series(tops, usable.index, dtype=object), k=usable["ranks"].map(len))
    measuring = comparisons.loc[comparisons["role"].isin(MEASURING_ROLES), "comparison_id"]
    judged = usable[~usable["comparison_id"].isin(measuring)]
    rows = {row["comparison_id"]: row for row in records(comparisons)}
    gold = {name: best(row["gold_ranks"]) for name, row in rows.items() if row["role"] == "gold"}
    choices = [
        AnnotatorChoice(label["comparison_id"], label["annotator"], label["top"][0], int(label["k"]))
        for label in records(usable[usable["top"].map(len) == 1])
    ]
    return _Measured(
        submitted=submitted,
        judged=judged,
        decided=judged[judged["top"].map(len) == 1],
        pairs=agreeing_pairs(judged[judged["top"].map(len) == 1]),
        gold=gold_answers(usable, rows),
        repeats=repeated_answers(usable, rows),
        untouched=untouched_rankings(usable, rows),
        drift=drift_answers(usable, rows, DEMONSTRATION_POLICY),
        skill=competences(choices, {name: known[0] for name, known in gold.items() if len(known) == 1}),
    )


def _figures(labels: pd.DataFrame, submitted: pd.DataFrame, decided: pd.DataFrame) -> list[dict[str, Any]]:
    """Counts and times of each annotator, sorted by name."""
    latest = labels[labels["latest"]]
    marked = submitted.assign(
        flagged=submitted["flags"].map(lambda flags: flags is not None and len(flags) > 0),
        undecided=submitted["ranks"].map(_is_undecided),
    )
    given = marked.groupby("annotator", sort=True).agg(
        labels=("label_id", "size"),
        seconds=("seconds", "median"),
        flagged=("flagged", "sum"),
        undecided=("undecided", "sum"),
    )
    skipped = (latest["status"] == "skipped").groupby(latest["annotator"]).sum().rename("skipped")
    choices = decided.assign(first=decided["chosen_position"] == 0, chance=1 / decided["k"]).groupby("annotator")
    chosen = choices.agg(decided=("label_id", "size"), first=("first", "sum"), chance=("chance", "mean"))
    return records(given.join(skipped).join(chosen).fillna({"skipped": 0, "decided": 0, "first": 0}).reset_index())


def _annotator_row(figures: dict[str, Any], measured: _Measured) -> dict[str, Any]:
    name, labels = figures["annotator"], int(figures["labels"])
    own, everybody = measured.pairs[name], measured.pairs[ALL]
    own_gold, all_gold = measured.gold[name], measured.gold[ALL]
    gold, repeats = _rate(own_gold), _rate(measured.repeats[name])
    agreement, untouched = _rate(own), _rate(measured.untouched[name])
    first = _first_position(int(figures["first"]), int(figures["decided"]), figures["chance"])
    found = AnnotatorFigures(
        labels=labels,
        pace=figures["seconds"] / measured.submitted["seconds"].median(),
        agreement=agreement,
        others_agreement=share_with_interval(everybody.so - own.so, everybody.n - own.n),
        first_position=first,
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
        **interval_columns(agreement, "agreement"),
        "agreement_n": own.n,
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


def _first_position(first: int, decided: int, chance: float) -> dict[str, Any] | None:
    """How often the first response shown was chosen, with what it would be by ``chance``: the mean of 1 / K."""
    found = share_with_interval(first, decided)
    return found | {"chance": float(chance)} if found else None


def _rate(tally: Tally) -> dict[str, Any] | None:
    return share_with_interval(tally.so, tally.n)


def _is_undecided(ranks: Any) -> bool:
    """Whether a label names no single best response."""
    return ranks is None or isinstance(ranks, float) or len(best(ranks)) != 1
