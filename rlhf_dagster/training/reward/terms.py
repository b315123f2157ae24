"""What a label says: terms of the reward model's loss (choices among responses, ratings), and pairs for DPO.

:data:`LEARNED` has a row for each kind of comparison.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rlhf_dagster.config.training import RewardModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.outcome import nested_choices, target
from rlhf_dagster.records.tables import grouped


@dataclass(frozen=True)
class Choice:
    """Which is the best among some of the responses compared."""

    members: list[int]
    """Indices of the responses to choose from."""
    target: list[float]
    """Probability that each is the best of them."""
    weight: float
    margin: float = 0.0
    """By how much the best one's score must lead."""


@dataclass(frozen=True)
class Rating:
    """A standardised rating of one response, or the difference between the ratings of two."""

    members: list[int]
    value: float
    weight: float


class RatingScale(NamedTuple):
    """Mean and population deviation of ratings, by which they are standardised."""

    mean: float
    deviation: float


PreferenceRow = Mapping[str, Any]
"""A row of PREFERENCES."""

ComparedPair = tuple[int, int, float]
"""The indices of two responses, the smaller first, and the probability that the first is preferred."""


@dataclass(frozen=True)
class Terms:
    """What the labels of one comparison add to the loss."""

    choices: list[Choice] = field(default_factory=list)
    ratings: list[Rating] = field(default_factory=list)


def merge_labels(frame: pd.DataFrame, settings: RewardModelSettings | None = None) -> pd.DataFrame:
    """One row for each comparison, with the :class:`Terms` of all its labels in a column ``terms``.

    Choices of different labels among the same responses are merged: the mean of their targets, with the sum of their
    weights. The cross-entropy is linear in the target, so the loss and its gradient are those of the separate labels,
    for one forward pass instead of one for each annotator. Where ties have a model of their own, or a margin is asked
    for, only choices of the same outcome are merged.

    By default a ranking is its nested choices (:func:`~rlhf_dagster.records.outcome.nested_choices`). Their losses,
    each with the label's weight, add up to the negative Plackett-Luce log-likelihood of an order without ties.
    """
    settings = settings or RewardModelSettings()
    scale = rating_scale(frame) if rates(settings) else None
    rows = [labels[0] | {"terms": _terms(labels, settings, scale)} for labels in grouped(frame, "comparison_id")]
    return pd.DataFrame(rows, columns=[*frame.columns, "terms"])


def label_terms(row: PreferenceRow) -> Terms:
    """The choice of the label's best response as the only term, whatever the label's kind; evaluation uses it."""
    return Terms([_best(row)])


def rates(settings: RewardModelSettings) -> bool:
    """Whether ratings are learned as numbers and not as the order that they give."""
    return settings.rating != "ranks"


def rating_scale(frame: pd.DataFrame) -> RatingScale | None:
    """The scale of all ratings in a PREFERENCES table; None without ratings. Raises UserError if all are the same."""
    rated = frame.loc[frame["kind"] == "rating", "ratings"]
    if rated.empty:
        return None
    values = np.concatenate([np.asarray(ratings, dtype=float) for ratings in rated])
    if not values.std():
        raise UserError("All ratings are the same, so that there is nothing to learn from them; collect others.")
    return RatingScale(float(values.mean()), float(values.std()))


def soft_target(strength: float) -> float:
    """Probability that the response a label calls better really is: 1/2 at strength 0, 1 at strength 1."""
    return 0.5 + 0.5 * strength


def _terms(labels: Sequence[PreferenceRow], settings: RewardModelSettings, scale: RatingScale | None) -> Terms:
    found = [LEARNED[row["kind"]].terms(row, settings, scale) for row in labels]
    choices = [choice for terms in found for choice in terms.choices]
    ratings = [rating for terms in found for rating in terms.ratings]
    return Terms(_merged(choices, by_outcome=settings.ties != "share" or settings.margin > 0), ratings)


def _best_terms(row: PreferenceRow, settings: RewardModelSettings, scale: RatingScale | None) -> Terms:
    return label_terms(row)


def _pair_terms(row: PreferenceRow, settings: RewardModelSettings, scale: RatingScale | None) -> Terms:
    return Terms(_by_strength(row, settings))


def _ranking_terms(row: PreferenceRow, settings: RewardModelSettings, scale: RatingScale | None) -> Terms:
    return Terms(_pairs(row) if settings.ranking == "pairs" else _nested(row))


def _rating_terms(row: PreferenceRow, settings: RewardModelSettings, scale: RatingScale | None) -> Terms:
    if scale is None:
        return _ranking_terms(row, settings, scale)
    return Terms(ratings=_ratings(row, scale, settings.rating == "differences"))


def _best(row: PreferenceRow) -> Choice:
    shares = [float(share) for share in row["target"]]
    return Choice(list(range(len(shares))), shares, float(row["weight"]))


def _nested(row: PreferenceRow) -> list[Choice]:
    """The best of all, the best of the rest, and so on."""
    later = nested_choices([int(rank) for rank in row["ranks"]])[1:]
    return [_best(row), *(Choice(members, shares, float(row["weight"])) for members, shares in later)]


def _pairs(row: PreferenceRow) -> list[Choice]:
    """All K (K - 1) / 2 pairs, which share the label's weight (InstructGPT, Ouyang et al. 2022, equation 1)."""
    ranks = [int(rank) for rank in row["ranks"]]
    pairs = list(combinations(range(len(ranks)), 2))
    weight = float(row["weight"]) / len(pairs)
    return [Choice([i, j], _pair_target(ranks[i], ranks[j]), weight) for i, j in pairs]


def _pair_target(first: int, second: int) -> list[float]:
    return target([1, 1] if first == second else [1, 2] if first < second else [2, 1])


def _by_strength(row: PreferenceRow, settings: RewardModelSettings) -> list[Choice]:
    """The choice of a pair, with the margin or soft target that its strength, where it has one, gives."""
    choice, strength = _best(row), row.get("strength")
    if pd.isna(strength) or 1.0 not in choice.target or not (settings.margin or settings.soft_targets):
        return [choice]
    if settings.margin:
        return [Choice(choice.members, choice.target, choice.weight, settings.margin * float(strength))]
    # Two choices, one for each outcome: a model of ties would take a single soft target for a tie.
    better = soft_target(float(strength))
    other = [1.0 - share for share in choice.target]
    shares = [(choice.target, better), (other, 1 - better)]
    return [Choice(choice.members, outcome, choice.weight * share) for outcome, share in shares if share]


def _ratings(row: PreferenceRow, scale: RatingScale, differences: bool) -> list[Rating]:
    """A label's ratings, or the differences of all its pairs; they share the label's weight."""
    values = [(float(rating) - scale.mean) / scale.deviation for rating in row["ratings"]]
    if differences:
        found = [([i, j], values[i] - values[j]) for i, j in combinations(range(len(values)), 2)]
    else:
        found = [([i], value) for i, value in enumerate(values)]
    return [Rating(members, value, float(row["weight"]) / len(found)) for members, value in found]


def _merged(choices: Sequence[Choice], by_outcome: bool) -> list[Choice]:
    """Choices with the same members (with ``by_outcome`` also the same target and margin) merged to one, in order."""
    groups: dict[tuple[Any, ...], list[Choice]] = {}
    for choice in choices:
        outcome = (*choice.target, choice.margin) if by_outcome else ()
        groups.setdefault((tuple(choice.members), outcome), []).append(choice)
    return [_mean(group) for group in groups.values()]


def _mean(group: Sequence[Choice]) -> Choice:
    weights = np.array([choice.weight for choice in group])
    shares = np.average(np.stack([choice.target for choice in group]), axis=0, weights=weights)
    return Choice(group[0].members, shares.tolist(), float(weights.sum()), group[0].margin)


def _compared_with_best(row: PreferenceRow) -> Iterator[ComparedPair]:
    """The best with each of the others, which were not compared among themselves; several best ones tie.

    Luce's choice rule: the first of two responses is preferred with probability target_1 / (target_1 + target_2).
    """
    shares = row["target"]
    for first, second in combinations(range(len(shares)), 2):
        if (both := shares[first] + shares[second]) > 0:
            yield first, second, shares[first] / both


def _compared_by_rank(row: PreferenceRow) -> Iterator[ComparedPair]:
    """Every pair; equal ranks tie."""
    # Numbers of a Parquet table are numpy's, whose comparisons cannot be subtracted.
    ranks = [int(rank) for rank in row["ranks"]]
    for first, second in combinations(range(len(ranks)), 2):
        yield first, second, 0.5 + 0.5 * ((ranks[first] < ranks[second]) - (ranks[first] > ranks[second]))


class Learned(NamedTuple):
    """What is learned from a label of one kind."""

    terms: Callable[[PreferenceRow, RewardModelSettings, RatingScale | None], Terms]
    """Gives terms of the reward model's loss; the scale is None where only the order of ratings is learned."""
    pairs: Callable[[PreferenceRow], Iterator[ComparedPair]]
    """The pairs that the label compares, from which DPO learns."""


LEARNED: dict[str, Learned] = {
    "pair": Learned(_pair_terms, _compared_with_best),
    "best_of_k": Learned(_best_terms, _compared_with_best),
    "ranking": Learned(_ranking_terms, _compared_by_rank),
    "rating": Learned(_rating_terms, _compared_by_rank),
}
"""By kind of comparison."""


def different_terms(terms: Terms, sequences: Sequence[list[int]]) -> Terms:
    """The terms that compare different sequences: a choice among equal ones, and their difference, teach nothing."""
    ratings = [
        rating
        for rating in terms.ratings
        if len(rating.members) == 1 or sequences[rating.members[0]] != sequences[rating.members[-1]]
    ]
    return replace(terms, choices=[one for one in terms.choices if _differ(one, sequences)], ratings=ratings)


def _differ(choice: Choice, sequences: Sequence[list[int]]) -> bool:
    return any(sequences[member] != sequences[choice.members[0]] for member in choice.members)
