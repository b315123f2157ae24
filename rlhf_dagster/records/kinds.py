"""Kinds of comparison: what is decided, how the answer is written down, and which ranks it gives the responses.

Every kind is a class here. How Label Studio asks for it stands in :mod:`rlhf_dagster.labeling.label_studio.kinds`, what
the reward model and DPO learn from it in :mod:`rlhf_dagster.training.reward.terms`. The answers below are in display
positions, counted from 0; all kinds but the demonstration can also be answered with ``{"cannot_decide": true}``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar, Literal

from rlhf_dagster.records.answers import (
    Answer,
    UnreadableError,
    checked_axis,
    checked_positions,
    is_whole,
    named,
    written_text,
)
from rlhf_dagster.records.outcome import best, deciding_axis, ranks_from_best, ranks_from_ratings

RankedName = Literal["pair", "best_of_k", "ranking", "rating"]
"""Names of the kinds that the settings can ask for."""
LOWEST_RATING, HIGHEST_RATING = 1, 7


class LabelKind(ABC):
    """A kind of comparison."""

    name: ClassVar[str]
    decides: ClassVar[str]
    """What an annotator decides, as in "an annotator decides the better of two responses"."""
    key: ClassVar[str]
    """The key of the answer in a result."""

    @abstractmethod
    def read(self, value: Any, k: int, axes: Sequence[str] = ()) -> Answer:
        """What the answer ``value`` says about ``k`` responses; ``axes`` decide ranks as in :func:`deciding_axis`.

        Raises :class:`~rlhf_dagster.records.answers.UnreadableError`.
        """


class RankedKind(LabelKind):
    """A kind whose outcome is ranks."""

    responses: ClassVar[int | None] = None
    """How many are compared; None: as many as the settings say."""
    ordered: ClassVar[bool] = False
    """Whether the outcome says more than which responses are best."""

    @abstractmethod
    def write(self, ranks: Sequence[int], ratings: Mapping[str, Sequence[int]] | None = None) -> Any:
        """The answer that :meth:`read` turns into ``ranks`` (display order), or into the ``ratings`` of a rating."""

    def of_order(self, ranks: Sequence[int]) -> list[int] | None:
        """The ranks in this kind by somebody who would rank all responses as ``ranks``; None: cannot decide."""
        return list(ranks)

    def problem(self, ranks: Sequence[int]) -> str:
        """Why valid ranks are no outcome of this kind, only of another; empty if they are an outcome of this kind."""
        return ""


class PairKind(RankedKind):
    """``{"choice": 0}``, ``{"choice": 1}`` or ``{"choice": "tie"}``; in an A/B evaluation also
    ``"axes": {"helpful": 0, "honest": "tie"}``.
    """

    name, key = "pair", "choice"
    decides = "the better of two responses"
    responses = 2

    def read(self, value: Any, k: int, axes: Sequence[str] = ()) -> Answer:
        return Answer(self.ranks(value, k))

    def ranks(self, value: Any, k: int) -> list[int]:
        return ranks_from_best(checked_positions([0, 1] if value == "tie" else [value], self.key, k), k)

    def write(self, ranks: Sequence[int], ratings: Mapping[str, Sequence[int]] | None = None) -> Any:
        chosen = best(ranks)
        return chosen[0] if len(chosen) == 1 else "tie"

    def problem(self, ranks: Sequence[int]) -> str:
        return "" if len(ranks) == self.responses else f"a pair has 2 responses, not {len(ranks)}"


class BestOfKKind(RankedKind):
    """``{"best": 2}``, or ``{"best": [0, 2]}`` for a tie at the top."""

    name, key = "best_of_k", "best"
    decides = "the best of `responses_per_prompt`"

    def read(self, value: Any, k: int, axes: Sequence[str] = ()) -> Answer:
        return Answer(ranks_from_best(checked_positions(value if isinstance(value, list) else [value], self.key, k), k))

    def write(self, ranks: Sequence[int], ratings: Mapping[str, Sequence[int]] | None = None) -> Any:
        chosen = best(ranks)
        return chosen[0] if len(chosen) == 1 else chosen

    def of_order(self, ranks: Sequence[int]) -> list[int] | None:
        """Of responses that are all equally good nobody can name the best."""
        return ranks_from_best(best(ranks), len(ranks)) if max(ranks) > 1 else None

    def problem(self, ranks: Sequence[int]) -> str:
        return "best_of_k only tells the best from the rest, ranks 1 and 2" if max(ranks, default=1) > 2 else ""


class RankingKind(RankedKind):
    """``{"ranks": [1, 2, 2, 3]}``: the rank of the response at each position, 1 best, equal ranks tie."""

    name, key = "ranking", "ranks"
    decides = "their whole order (with ties)"
    ordered = True

    def read(self, value: Any, k: int, axes: Sequence[str] = ()) -> Answer:
        if not isinstance(value, list):
            raise UnreadableError(f"`ranks` is {named(value)}, not a list.")
        if len(value) != k:
            raise UnreadableError(f"`ranks` has {len(value)} ranks for {k} responses.")
        problem = "ranks must be whole numbers" if not all(map(is_whole, value)) else problem_with(value, self.name)
        if problem:
            raise UnreadableError(f"`ranks` is no ranking: {problem}.")
        return Answer(value)

    def write(self, ranks: Sequence[int], ratings: Mapping[str, Sequence[int]] | None = None) -> Any:
        return list(ranks)


class RatingKind(RankedKind):
    """``{"ratings": {"overall": [5, 3], "helpful": [6, 2]}}``: 1 (worst) to 7 for each position."""

    name, key = "rating", "ratings"
    decides = f"a rating of each from {LOWEST_RATING} to {HIGHEST_RATING}"
    ordered = True

    def read(self, value: Any, k: int, axes: Sequence[str] = ()) -> Answer:
        if not isinstance(value, Mapping) or not value:
            raise UnreadableError(f"`ratings` is {'empty' if value == {} else named(value)}, not ratings by axis.")
        for axis, given in value.items():
            _check_ratings(given, f"`ratings` on {str(axis)[:40]}", k)
        ratings = {checked_axis(axis): list(given) for axis, given in value.items()}
        return Answer(ranks_from_ratings(ratings[deciding_axis(ratings, axes)]), ratings)

    def write(self, ranks: Sequence[int], ratings: Mapping[str, Sequence[int]] | None = None) -> Any:
        if not ratings:
            raise ValueError("a rating is answered with ratings, not with ranks alone")
        return {axis: list(values) for axis, values in ratings.items()}


class DemonstrationKind(LabelKind):
    """``{"text": "..."}``: the prompt is answered, and no response is compared."""

    name, key = "demonstration", "text"
    decides = "what an ideal assistant would answer"

    def read(self, value: Any, k: int, axes: Sequence[str] = ()) -> Answer:
        return Answer(text=written_text(value, self.key))


PAIR, DEMONSTRATION = PairKind(), DemonstrationKind()
RANKED_KINDS: dict[str, RankedKind] = {
    kind.name: kind
    for kind in (
        PAIR,
        BestOfKKind(),
        RankingKind(),
        RatingKind(),
    )
}
"""The kinds whose outcome is ranks, by name."""
ALL_KINDS: dict[str, LabelKind] = {**RANKED_KINDS, DEMONSTRATION.name: DEMONSTRATION}
ORDERED_KINDS = tuple(name for name, kind in RANKED_KINDS.items() if kind.ordered)
"""Names of the kinds whose outcome says more than which responses are best."""


def problem_with(ranks: Sequence[int], kind: str) -> str:
    """Why ``ranks`` are no outcome of this kind of comparison; empty if they are one."""
    if any(isinstance(rank, bool) or not isinstance(rank, Integral) for rank in ranks):
        return "ranks must be whole numbers"
    distinct = set(ranks)
    if distinct != set(range(1, len(distinct) + 1)):
        return "ranks must start at 1 and leave none out"
    if kind not in RANKED_KINDS:
        return f"{kind!r} is no kind of comparison that has ranks"
    problem = RANKED_KINDS[kind].problem(ranks)
    return problem or ("a comparison has at least 2 responses" if len(ranks) < 2 else "")


def _check_ratings(ratings: Any, what: str, k: int) -> None:
    if not isinstance(ratings, list) or len(ratings) != k:
        raise UnreadableError(f"{what} are not a list of {k} ratings.")
    if not all(is_whole(rating) and LOWEST_RATING <= rating <= HIGHEST_RATING for rating in ratings):
        raise UnreadableError(f"{what} are not whole numbers from {LOWEST_RATING} to {HIGHEST_RATING}.")
