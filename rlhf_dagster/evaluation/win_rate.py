"""How often one policy's response is preferred to another's, by scalar judges and by judgments of pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from rlhf_dagster.common.intervals import Rate, clustered_rate, finite_or_none
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.length_control import length_controlled
from rlhf_dagster.records.machines import by_people

REWARD_MODEL = "reward model"
SIMULATED_ANNOTATORS = "simulated annotators"
ANNOTATORS = "annotators"
GOLD_JUDGE = "gold judge"
PEOPLE = (ANNOTATORS, SIMULATED_ANNOTATORS)
"""Judges whose A/B judgments count as people's."""

SFT = "sft"
BEHAVIOUR = "behaviour"
POLICY = "policy"
"""The policy that the gate judges, whichever arm has made it."""


@dataclass(frozen=True)
class WinRate:
    """(wins + ties / 2) / n of a policy ``against`` another's role, by ``judge``, with a 95% interval.

    ``n`` counts the decided judgments: wins, ties and losses. ``undecided`` ones ("cannot decide") are not in ``n``.
    Without a decided judgment ``value`` is NaN and the interval is 0 to 1.
    """

    judge: str
    against: str
    value: float
    low: float
    high: float
    n: int
    wins: int
    ties: int
    losses: int
    undecided: int = 0
    length_controlled: Rate | None = None
    """What ``value`` would be at equal length; None where lengths were not given."""

    def as_dict(self) -> dict[str, Any]:
        """JSON's form: numbers that are not finite become None, and a figure that was not asked for is left out."""
        figures = asdict(self) | {name: finite_or_none(getattr(self, name)) for name in ("value", "low", "high")}
        del figures["length_controlled"]
        return figures | ({"length_controlled": self.length_controlled.as_dict()} if self.length_controlled else {})


def win_rate(
    scores_a: ArrayLike, scores_b: ArrayLike, judge: str, against: str, longer: ArrayLike | None = None
) -> WinRate:
    """The share of prompts on which a's response scores higher than b's, equal scores counting half.

    Both have shape [n], one score for each prompt in the same order, and so has ``longer``, by how many characters a's
    response is longer than b's, which the length-controlled win rate needs. Raises UserError where a score is not a
    finite number, because a comparison with NaN would count as a loss or a win in silence.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} scores cannot be compared with {b.size}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError(f"The {judge} gave a score that is not a finite number; look at its training curves first.")
    return _tally(np.sign(a - b), range(a.size), judge=judge, against=against, longer=longer)


def win_rate_from_ranks(
    ranks: Iterable[Sequence[int] | None],
    judge: str,
    against: str,
    clusters: Sequence[Any] | None = None,
    longer: Sequence[float] | None = None,
) -> WinRate:
    """The win rate of a over b by judgments of pairs: each is (rank of a, rank of b), lower better, None undecided.

    ``clusters`` names what each judgment is about where several are about the same pair, so that the interval allows
    for their dependence (:func:`intervals.clustered_rate`). ``longer`` is that of :func:`win_rate`, for each judgment.
    """
    given = list(ranks)
    names = range(len(given)) if clusters is None else clusters
    decided = [index for index, pair in enumerate(given) if pair is not None]
    outcomes = np.array([np.sign(pair[1] - pair[0]) for pair in given if pair is not None])
    return _tally(
        outcomes,
        [names[index] for index in decided],
        judge=judge,
        against=against,
        undecided=len(given) - len(decided),
        longer=None if longer is None else [longer[index] for index in decided],
    )


def win_rate_from_labels(
    labels: pd.DataFrame, comparisons: pd.DataFrame, policy_a: str, policy_b: str, *, judge: str, against: str
) -> WinRate:
    """The win rate of ``policy_a`` over ``policy_b`` by the A/B judgments in ``labels``.

    ``labels`` and ``comparisons`` have the columns of records.schemas LABELS and COMPARISONS; counted are the latest
    submitted labels by people of the evaluation pairs made of these two policies, whatever else the tables hold. Of two
    annotations by one person of one comparison the one made last counts.
    """
    if policy_a == policy_b:
        raise ValueError(f"{policy_a} cannot be compared with itself")
    asked = comparisons[comparisons["purpose"] == "evaluation"]
    places = {
        comparison: (list(policies).index(policy_a), list(policies).index(policy_b))
        for comparison, policies in zip(asked["comparison_id"], asked["policy_ids"], strict=True)
        if sorted(policies) == sorted((policy_a, policy_b))
    }
    labels = by_people(labels)
    counted = labels[labels["latest"] & (labels["status"] == "submitted") & labels["comparison_id"].isin(list(places))]
    last = counted.sort_values(["updated_at", "label_id"]).drop_duplicates(["comparison_id", "annotator"], keep="last")
    counted = counted[counted.index.isin(last.index)]
    clusters = counted["comparison_id"].tolist()
    ranks = [
        [int(given[place]) for place in places[comparison]] if pd.api.types.is_list_like(given) else None
        for comparison, given in zip(clusters, counted["ranks"], strict=True)
    ]
    longer = _longer(asked, places)
    return win_rate_from_ranks(ranks, judge, against, clusters, [longer[name] for name in clusters])


def find_win_rate(win_rates: Iterable[dict[str, Any]], judges: Sequence[str], against: str) -> dict[str, Any] | None:
    """The first of ``win_rates`` (in JSON's form) by one of ``judges``, earlier judges first."""
    rates = list(win_rates)
    found = (rate for judge in judges for rate in rates if (rate.get("judge"), rate.get("against")) == (judge, against))
    return next(found, None)


def _longer(asked: pd.DataFrame, places: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """By comparison, how many characters a's response is longer than b's; ``places`` says where the two stand."""
    responses = dict(zip(asked["comparison_id"], asked["responses"], strict=True))
    return {
        comparison: float(len(responses[comparison][a]) - len(responses[comparison][b]))
        for comparison, (a, b) in places.items()
    }


def _tally(
    outcomes: np.ndarray,
    clusters: Sequence[Any],
    *,
    judge: str,
    against: str,
    undecided: int = 0,
    longer: ArrayLike | None = None,
) -> WinRate:
    """``outcomes``: +1 for a win of a, 0 for a tie, -1 for a loss, shape [n]."""
    wins, ties, losses = (int((outcomes == sign).sum()) for sign in (1, 0, -1))
    if len(outcomes) == 0:
        return WinRate(judge, against, float("nan"), 0.0, 1.0, 0, 0, 0, 0, undecided)
    rate = clustered_rate((outcomes + 1) / 2, clusters)
    equally_long = None if longer is None else length_controlled((outcomes + 1) / 2, longer, clusters)
    return WinRate(
        judge, against, rate.value, rate.low, rate.high, len(outcomes), wins, ties, losses, undecided, equally_long
    )
