"""How far people who judge the same comparisons agree."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

import pandas as pd

from rlhf_dagster.labeling.quality.checks import ALL, Tally
from rlhf_dagster.records.kinds import ORDERED_KINDS, PAIR
from rlhf_dagster.records.tables import records

RESAMPLES = 2000


def agreeing_pairs(decided: pd.DataFrame) -> Mapping[str, Tally]:
    """Of every two decided labels of a comparison, those that name the same response; by annotator and in all.

    ``decided`` has the columns ``comparison_id``, ``annotator`` and ``top`` (tuple with the index of the best).
    """
    tallies: dict[str, Tally] = defaultdict(Tally)
    by_comparison: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for comparison, name, top in zip(decided["comparison_id"], decided["annotator"], decided["top"], strict=True):
        by_comparison[comparison].append((name, top[0]))
    for given in by_comparison.values():
        for (first, first_best), (second, second_best) in combinations(given, 2):
            for name in (first, second, ALL):
                tallies[name].add(first_best == second_best)
    return tallies


def nominal_alpha(judged: pd.DataFrame) -> dict[str, Any] | None:
    """Krippendorff's alpha over the responses chosen as best; None if nothing was judged twice.

    ``judged`` has the columns ``comparison_id`` and ``top`` (tuple of the indices with rank 1); a tie is a value of its
    own and ``cannot decide`` a missing one.
    """
    values = ["+".join(map(str, top)) for top in judged["top"]]
    return krippendorff_alpha(pd.DataFrame({"unit": judged["comparison_id"], "value": values}), "nominal")


def ordinal_alpha(judged: pd.DataFrame) -> dict[str, Any] | None:
    """Krippendorff's alpha over how good the responses are, for labels that say more than which is best.

    The unit is a comparison for pairs with strength (from -2, the second is much better, to 2), and a response (its
    rank) for rankings, ratings and other orders. None for other labels.
    """
    rows: list[tuple[str, float]] = []
    for label in records(judged):
        if label["kind"] in ORDERED_KINDS:
            rows += [(f"{label['comparison_id']}/{index}", float(rank)) for index, rank in enumerate(label["ranks"])]
        elif label["kind"] == PAIR.name and (pd.notna(label["strength"]) or len(label["top"]) == 2):
            rows.append((label["comparison_id"], _signed(label)))
    frame = pd.DataFrame(rows, columns=["unit", "value"])
    only_ties = judged["strength"].isna().all() and not judged["kind"].isin(ORDERED_KINDS).any()
    return None if only_ties else krippendorff_alpha(frame, "ordinal")


def krippendorff_alpha(values: pd.DataFrame, distance: Literal["nominal", "ordinal"]) -> dict[str, Any] | None:
    """Alpha of ``values`` (columns ``unit`` and ``value``, a row for each label) with a 95% bootstrap interval.

    Krippendorff, *Content Analysis* (2018), chapter 12; the interval is that of Krippendorff (2006). Alpha looks only
    at the values of a unit, not at who gave them, so row j of the matrix is each unit's j-th label instead of a person:
    a few rows, where a crowd would make thousands. None where no unit has two labels or nothing varies (0 / 0).
    """
    import evalica

    slots = values.groupby("unit").cumcount()
    matrix = values.assign(slot=slots).pivot(index="slot", columns="unit", values="value")
    matrix = matrix.loc[:, matrix.notna().sum() >= 2].astype(object)
    matrix = matrix.where(matrix.notna(), None)
    if matrix.empty or matrix.stack().nunique() == 1:
        return None
    result = evalica.alpha_bootstrap(matrix, distance=distance, n_resamples=RESAMPLES, random_state=0)
    return {"value": float(result.alpha), "low": float(result.low), "high": float(result.high), "n": matrix.shape[1]}


def _signed(label: Mapping[str, Any]) -> float:
    """How much better the first response is: 1 or 2, negative where it is the second, 0 for a tie."""
    if len(label["top"]) == 2:
        return 0.0
    step = 2.0 if label["strength"] > 0.75 else 1.0
    return step if label["top"][0] == 0 else -step
