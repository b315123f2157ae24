"""How far people who judge the same comparisons agree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from rlhf_dagster.common.cluster_shares import SUMS, cluster_sums, share_from_sums
from rlhf_dagster.labeling.quality.alpha import krippendorff_alpha
from rlhf_dagster.records.kinds import ORDERED_KINDS, PAIR
from rlhf_dagster.records.tables import records

Share = dict[str, Any] | None
"""``value``, ``low``, ``high`` and ``n`` pairs of labels; None without any."""


@dataclass(frozen=True)
class Agreement:
    """Of every two labels of a comparison, the share that name the same best responses."""

    everybody: Share
    own: Mapping[str, Share]
    """By annotator, the pairs with one of their labels."""
    others: Mapping[str, Share]
    """By annotator, all other pairs."""


def agreement_of(labels: pd.DataFrame) -> Agreement:
    """The agreement of labels with the columns ``comparison_id``, ``annotator`` and ``top`` (tuple of the best).

    Pairs of one comparison share labels and are not independent; the intervals allow for that
    (:func:`~rlhf_dagster.common.cluster_shares.share_from_sums`).
    """
    pairs = _pairs(labels)
    names = pairs["annotator"]
    in_all = cluster_sums(pairs["all_so"], pairs["all_n"])
    everybody = in_all[~pairs["comparison_id"].duplicated()].sum()
    own = cluster_sums(pairs["so"], pairs["n"]).groupby(names).sum()
    left = cluster_sums(pairs["all_so"] - pairs["so"], pairs["all_n"] - pairs["n"])
    others = (left - in_all).groupby(names).sum() + everybody[list(SUMS)]
    return Agreement(share_from_sums(everybody.to_dict()), _shares(own), _shares(others))


def nominal_alpha(judged: pd.DataFrame) -> dict[str, Any] | None:
    """Krippendorff's alpha over the responses chosen as best; None if nothing was judged twice.

    ``judged`` has the columns ``comparison_id`` and ``top`` (tuple of the indices with rank 1); a tie is a value of its
    own and ``cannot decide`` a missing one.
    """
    names, values = judged["comparison_id"], ["+".join(map(str, top)) for top in judged["top"]]
    return krippendorff_alpha(pd.DataFrame({"comparison": names, "unit": names, "value": values}), "nominal")


def ordinal_alpha(judged: pd.DataFrame) -> dict[str, Any] | None:
    """Krippendorff's alpha over how good the responses are, for labels that say more than which is best.

    The unit is a comparison for pairs with strength (from -2, the second is much better, to 2), and a response (its
    rank) for rankings, ratings and other orders. None for other labels.
    """
    rows: list[tuple[str, str, float]] = []
    for label in records(judged[["comparison_id", "kind", "ranks", "strength", "top"]]):
        name = label["comparison_id"]
        if label["kind"] in ORDERED_KINDS:
            rows += [(name, f"{name}/{index}", float(rank)) for index, rank in enumerate(label["ranks"])]
        elif label["kind"] == PAIR.name and (pd.notna(label["strength"]) or len(label["top"]) == 2):
            rows.append((name, name, _signed(label)))
    frame = pd.DataFrame(rows, columns=["comparison", "unit", "value"])
    only_ties = judged["strength"].isna().all() and not judged["kind"].isin(ORDERED_KINDS).any()
    return None if only_ties else krippendorff_alpha(frame, "ordinal")


def _pairs(labels: pd.DataFrame) -> pd.DataFrame:
    """For each label, its pairs with others of the comparison and all of that: how many, and how many agree."""
    frame = labels[["comparison_id", "annotator", "top"]]
    given = frame.groupby("comparison_id")["annotator"].transform("size")
    alike = frame.groupby(["comparison_id", "top"])["annotator"].transform("size")
    frame = frame.assign(so=alike - 1, n=given - 1, all_n=given * (given - 1) // 2)
    # Each pair that agrees is counted by both of its labels.
    return frame.assign(all_so=frame.groupby("comparison_id")["so"].transform("sum") // 2)


def _shares(sums: pd.DataFrame) -> dict[str, Share]:
    return {str(name): share_from_sums(row) for name, row in sums.to_dict("index").items()}


def _signed(label: Mapping[str, Any]) -> float:
    """How much better the first response is: 1 or 2, negative where it is the second, 0 for a tie."""
    if len(label["top"]) == 2:
        return 0.0
    step = 2.0 if label["strength"] > 0.75 else 1.0
    return step if label["top"][0] == 0 else -step
