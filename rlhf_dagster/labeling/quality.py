"""Quality of labels: agreement, side preference and speed, in all and for each annotator."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from rlhf_dagster.labeling.outcome import best
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.labeling.rows import records
from rlhf_dagster.lineage.schemas import QUALITY, table

MIN_FOR_REVIEW = 20
"""Fewer judgments than this say too little about a person."""
TOO_FAST = 1 / 3
"""Share of the usual time below which a person's median time is worth a look."""


@dataclass
class _Tally:
    """Judgments of one annotator, or of all."""

    agreed: int = 0
    compared: int = 0


def label_quality(labels: pd.DataFrame, comparisons: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """One row of QUALITY for each annotator, and a summary of all labels.

    ``labels`` and ``comparisons`` have the columns of LABELS and COMPARISONS. A label is *decided* if it names a single
    best response. Agreement is the share of pairs of decided labels, of one comparison by two people, that name the
    same response. Its Wilson interval takes the pairs as independent; pairs that share a label are not quite, so the
    interval is somewhat too narrow where many people judge the same comparison.

    The summary holds counts (``comparisons``; those ``overlapping``, with two or more usable labels; ``labels``,
    ``usable``, ``undecided``, ``annotators``); ``agreement``, ``alpha`` and ``first_position`` with ``value``, ``low``,
    ``high`` and ``n``, or None without data; what ``first_position`` would be by ``chance``; and whom to ``review``.
    """
    submitted = labels[labels["latest"] & (labels["status"] == "submitted")]
    submitted = submitted.drop_duplicates(["comparison_id", "annotator"], keep="last")
    usable = usable_labels(labels)
    tops = [tuple(best(ranks)) for ranks in usable["ranks"]]
    judged = usable.assign(top=pd.Series(tops, usable.index, dtype=object), k=usable["ranks"].map(len))
    decided = judged[judged["top"].map(len) == 1]
    pairs = _compared_pairs(decided)
    usual = submitted["seconds"].median()
    rows = [_annotator_row(figures, pairs, usual) for figures in _figures(submitted, decided)]
    overlapping = judged.groupby("comparison_id").size() if len(judged) else pd.Series(dtype=int)
    first = int((decided["chosen_position"] == 0).sum())
    summary = {
        "comparisons": len(comparisons),
        "labels": len(submitted),
        "usable": len(usable),
        "undecided": len(submitted) - len(decided),
        "annotators": len(rows),
        "overlapping": int((overlapping >= 2).sum()),
        "agreement": _rate(pairs[""].agreed, pairs[""].compared),
        "alpha": krippendorff_alpha(judged),
        "first_position": _first_position(first, len(decided), (1 / decided["k"]).mean()),
        "review": [row["annotator"] for row in rows if row["review"]],
    }
    return table(rows, QUALITY).to_pandas(), summary


def krippendorff_alpha(judged: pd.DataFrame) -> dict[str, Any] | None:
    """Krippendorff's alpha, nominal, over the responses chosen as best; None if nothing was judged twice.

    ``judged`` has the columns ``comparison_id`` and ``top`` (tuple of the indices with rank 1); a tie is a value of its
    own and ``cannot decide`` a missing one. Krippendorff, *Content Analysis* (2018), chapter 12. Alpha looks only at
    the values of a unit, not at who gave them, so row j of the matrix is each comparison's j-th label instead of a
    person: a few rows, where a crowd would make thousands. The 95% interval is a bootstrap (Krippendorff 2006).
    """
    import evalica

    values = ["+".join(map(str, top)) for top in judged["top"]]
    slots = judged.groupby("comparison_id").cumcount()
    matrix = judged.assign(value=values, slot=slots).pivot(index="slot", columns="comparison_id", values="value")
    matrix = matrix.loc[:, matrix.notna().sum() >= 2].astype(object)
    matrix = matrix.where(matrix.notna(), None)
    if matrix.empty:
        return None
    if matrix.stack().nunique() == 1:
        return None  # without any variation alpha is 0 / 0
    result = evalica.alpha_bootstrap(matrix, distance="nominal", n_resamples=2000, random_state=0)
    return {"value": float(result.alpha), "low": float(result.low), "high": float(result.high), "n": matrix.shape[1]}


def _compared_pairs(decided: pd.DataFrame) -> Mapping[str, _Tally]:
    """Agreement of every two decided labels of a comparison, for each annotator and, under "", for all."""
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    by_comparison: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for comparison, name, top in zip(decided["comparison_id"], decided["annotator"], decided["top"], strict=True):
        by_comparison[comparison].append((name, top[0]))
    for given in by_comparison.values():
        for (first, first_best), (second, second_best) in combinations(given, 2):
            for name in (first, second, ""):
                tallies[name].compared += 1
                tallies[name].agreed += first_best == second_best
    return tallies


def _figures(submitted: pd.DataFrame, decided: pd.DataFrame) -> list[dict[str, Any]]:
    """Counts and times of each annotator, sorted by name."""
    given = submitted.groupby("annotator", sort=True).agg(labels=("label_id", "size"), seconds=("seconds", "median"))
    choices = decided.assign(first=decided["chosen_position"] == 0, chance=1 / decided["k"]).groupby("annotator")
    chosen = choices.agg(decided=("label_id", "size"), first=("first", "sum"), chance=("chance", "mean"))
    return records(given.join(chosen).fillna({"decided": 0, "first": 0}).reset_index())


def _annotator_row(figures: dict[str, Any], pairs: Mapping[str, _Tally], usual: float) -> dict[str, Any]:
    own, everybody = pairs[figures["annotator"]], pairs[""]
    agreement = _rate(own.agreed, own.compared)
    others = _rate(everybody.agreed - own.agreed, everybody.compared - own.compared)
    first = _first_position(int(figures["first"]), int(figures["decided"]), figures["chance"])
    pace = figures["seconds"] / usual if figures["labels"] >= MIN_FOR_REVIEW else 1.0
    return {
        "annotator": figures["annotator"],
        "labels": figures["labels"],
        "share_undecided": 1 - figures["decided"] / figures["labels"],
        **_named("agreement", agreement, "agreement"),
        "agreement_n": own.compared,
        **_named("first_position", first, "first_position_share"),
        "chance_first": first["chance"] if first else None,
        "median_seconds": figures["seconds"],
        "review": _review(agreement, others, first, pace),
    }


def _review(
    agreement: dict[str, Any] | None, others: dict[str, Any] | None, first: dict[str, Any] | None, pace: float
) -> str:
    """Why somebody should look at an annotator's work; ``pace`` is the median time as a share of the usual one."""
    sentences = []
    if agreement and others and agreement["n"] >= MIN_FOR_REVIEW and agreement["high"] < others["value"]:
        sentences.append(
            f"Agrees with others on {agreement['value']:.0%}, they among themselves on {others['value']:.0%}."
        )
    if first and first["n"] >= MIN_FOR_REVIEW and not first["low"] <= first["chance"] <= first["high"]:
        sentences.append(
            f"Chose the first response shown in {first['value']:.0%}, where chance is {first['chance']:.0%}."
        )
    if pace < TOO_FAST:
        sentences.append(f"Takes {pace:.0%} of the usual time.")
    return " ".join(sentences)


def _first_position(first: int, decided: int, chance: float) -> dict[str, Any] | None:
    """How often the first response shown was chosen, with what it would be by ``chance``: the mean of 1 / K."""
    rate = _rate(first, decided)
    return rate | {"chance": float(chance)} if rate else None


def _rate(successes: int, n: int) -> dict[str, Any] | None:
    """A share with its 95% Wilson interval; None of nothing."""
    from rlhf_dagster.evaluation.intervals import wilson

    if n == 0:
        return None
    rate = wilson(successes, n)
    return {"value": rate.value, "low": rate.low, "high": rate.high, "n": rate.n}


def _named(prefix: str, rate: dict[str, Any] | None, value: str) -> dict[str, float | None]:
    low, high = f"{prefix}_low", f"{prefix}_high"
    return (
        {value: rate["value"], low: rate["low"], high: rate["high"]} if rate else {value: None, low: None, high: None}
    )
