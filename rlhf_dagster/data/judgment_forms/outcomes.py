"""Ranks, kinds and ratings from what other forms say of responses."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.data.judgment_forms.choices import NO_DECISION, TIE
from rlhf_dagster.data.judgment_forms.own import dense_ranks, kind_of
from rlhf_dagster.data.line_values import number_of, whole_number
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.records.answers import AXIS_PATTERN
from rlhf_dagster.records.kinds import HIGHEST_RATING, LOWEST_RATING
from rlhf_dagster.records.outcome import deciding_axis, ranks_from_best, ranks_from_ratings


def by_choice(choice: int | str, k: int) -> dict[str, Any]:
    """Fields of a JudgmentLine of which the best response is ``choice``, or TIE or NO_DECISION."""
    if choice == NO_DECISION:
        return {"ranks": None, "kind": kind_of((), k)}
    ranks = tuple(ranks_from_best(range(k) if choice == TIE else [int(choice)], k))
    return {"ranks": ranks, "kind": kind_of(ranks, k)}


def by_scores(scores: Sequence[float]) -> dict[str, Any]:
    """The same where the highest score is the best."""
    return by_order([-score for score in scores])


def by_order(order: Sequence[float]) -> dict[str, Any]:
    """The same where the lowest number is the best."""
    return {"ranks": dense_ranks(order), "kind": "pair" if len(order) == 2 else "ranking"}


def by_ratings(ratings: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The same of ratings by axis, each one for each response."""
    ranks = ranks_from_ratings(ratings[deciding_axis(ratings, ())])
    kept = {axis: tuple(values) for axis, values in ratings.items()}
    return {"ranks": tuple(ranks), "kind": "rating", "ratings": kept}


def ratings_in(given: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The axes on which all responses are rated as tables hold it, whole from LOWEST_RATING to HIGHEST_RATING.

    ``given`` has the ratings of each response by axis; a rating may stand in an object, under `Rating`.
    """
    axes = dict.fromkeys(axis for one in given for axis in one)
    found = {axis_name(axis): [_rating(one.get(axis)) for one in given] for axis in axes}
    whole = {axis: [rating for rating in values if rating is not None] for axis, values in found.items() if axis}
    return {axis: values for axis, values in whole.items() if len(values) == len(given)}


def axis_name(name: str) -> str:
    """The name as axes are called here, such as `instruction_following`; empty where none can be made of it."""
    plain = re.sub(r"[^a-z]+", "_", name.lower()).strip("_")
    return plain if re.fullmatch(AXIS_PATTERN, plain) else ""


def checked_count(k: int) -> None:
    if k < 2:
        raise BadLineError(f"has {k} response{'' if k == 1 else 's'}, and two are compared at least")


def _rating(value: Any) -> int | None:
    if isinstance(value, Mapping):
        value = value.get("Rating", value.get("rating", value.get("score")))
    try:
        rating = whole_number(number_of({"rating": value}, "rating"))
    except BadLineError:  # such as N/A: not rated
        return None
    return rating if rating is not None and LOWEST_RATING <= rating <= HIGHEST_RATING else None
