"""The forms of a result: how each kind of comparison is answered, in display positions counted from 0.

============== =========================================================================================
pair           ``{"choice": 0}``, ``{"choice": 1}`` or ``{"choice": "tie"}``; in an A/B evaluation also
               ``"axes": {"helpful": 0, "honest": "tie"}``
best_of_k      ``{"best": 2}``, or ``{"best": [0, 2]}`` for a tie at the top
ranking        ``{"ranks": [1, 2, 2, 3]}``: the rank of the response at each position, 1 best, equal ranks tie
rating         ``{"ratings": {"overall": [5, 3], "helpful": [6, 2]}}``: 1 (worst) to 7 for each position
demonstration  ``{"text": "..."}``
all the others ``{"cannot_decide": true}``
============== =========================================================================================

Each may also hold ``reason`` (text), ``strength`` (0 to 1) and ``flags`` (a list out of ``both_bad``, ``unsafe``,
``bad_prompt`` and ``stop``). What a label store could not bring into one of these forms is
``{"unreadable": "why", "raw": what it held}``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_dagster.config.labeling import AXIS_PATTERN
from rlhf_dagster.records.outcome import best, problem_with, ranks_from_best, ranks_from_ratings

STOP = "stop"
"""Asks to stop the training, because of something that a flag on one comparison cannot mend."""
FLAGS = ("both_bad", "unsafe", "bad_prompt", STOP)
"""Problems that an annotator can mark."""
LOWEST_RATING, HIGHEST_RATING = 1, 7
OVERALL = "overall"
"""The axis that decides the ranks of a rating where the settings do not say."""
_ANSWERS = {
    "pair": "choice",
    "best_of_k": "best",
    "ranking": "ranks",
    "rating": "ratings",
    "demonstration": "text",
}
_EXTRAS = {"reason", "strength", "flags"}


class UnreadableError(ValueError):
    """Says in one sentence why a result cannot be read."""


@dataclass(frozen=True)
class Answer:
    """What a result says, in display order."""

    ranks: list[int] | None = None
    """None where nothing was decided, and for a demonstration."""
    axes: dict[str, list[int]] = field(default_factory=dict)
    """By axis, the rating of each response or, in an A/B evaluation, its rank."""
    text: str = ""
    """The response written for a demonstration."""


def read_answer(result: Any, comparison: Mapping[str, Any], axes: Sequence[str] = ()) -> Answer:
    """What ``result`` says about ``comparison`` (a row of COMPARISONS).

    The ranks of a rating are those of the first of ``axes`` that was rated, else of ``overall``, else of the axis that
    is first in the alphabet. Raises :class:`UnreadableError`.
    """
    if not isinstance(result, Mapping):
        raise UnreadableError(f"The result is {named(result)}, not an object.")
    if "unreadable" in result:
        raise UnreadableError(str(result["unreadable"]))
    kind, k = comparison["kind"], len(comparison["display_order"])
    if kind not in _ANSWERS:
        raise UnreadableError(f"{str(kind)[:40]!r} is no kind of comparison.")
    _check_keys(result, kind, is_ab(comparison))
    on_axes = _ab_axes(result.get("axes", {}), k)
    if "cannot_decide" in result:
        if result["cannot_decide"] is not True:
            raise UnreadableError("`cannot_decide` can only be true.")
        return Answer(axes=on_axes)
    value = result[_ANSWERS[kind]]
    if kind == "ranking":
        return Answer(_ranks(value, k))
    if kind == "rating":
        ratings = _ratings(value, k)
        return Answer(ranks_from_ratings(ratings[deciding_axis(ratings, axes)]), ratings)
    if kind == "demonstration":
        return Answer(text=_written(value))
    return Answer(ranks_from_best(_positions(value, kind, k), k), on_axes)


def read_extras(result: Mapping[str, Any]) -> dict[str, Any]:
    """``strength``, ``flags`` and ``reason`` of a result, as in a row of LABELS. Raises :class:`UnreadableError`."""
    strength, flags, reason = result.get("strength"), result.get("flags", []), result.get("reason", "")
    if strength is not None and (
        isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1
    ):
        raise UnreadableError("`strength` is not a number between 0 and 1.")
    if not isinstance(flags, list) or not all(isinstance(flag, str) and flag in FLAGS for flag in flags):
        raise UnreadableError(f"`flags` is not a list out of {', '.join(FLAGS)}.")
    if len(set(flags)) < len(flags):
        raise UnreadableError("`flags` names a problem twice.")
    _check_text(reason, "reason")
    return {"strength": strength, "flags": flags, "reason": reason}


def result_of(
    ranks: Sequence[int] | None, kind: str, ratings: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """The result that says ``ranks`` (display order; None: cannot decide), or the ``ratings`` of a rating."""
    if ranks is None:
        return {"cannot_decide": True}
    if kind == "rating":
        if not ratings:
            raise ValueError("a rating is answered with ratings, not with ranks alone")
        return {"ratings": {axis: list(values) for axis, values in ratings.items()}}
    if kind == "ranking":
        return {"ranks": list(ranks)}
    chosen = best(ranks)
    if kind == "pair":
        return {"choice": chosen[0] if len(chosen) == 1 else "tie"}
    return {"best": chosen[0] if len(chosen) == 1 else chosen}


def is_ab(comparison: Mapping[str, Any]) -> bool:
    """Whether it is a pair of an A/B evaluation, which can be judged on several axes."""
    return comparison["kind"] == "pair" and comparison["purpose"] == "evaluation"


def named(value: Any) -> str:
    """What a wrong value is, in a word."""
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object", float: "a fraction"}
    return "nothing" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def _check_keys(result: Mapping[str, Any], kind: str, with_axes: bool) -> None:
    answer = _ANSWERS[kind]
    answers = [answer] if kind == "demonstration" else [answer, "cannot_decide"]
    known = _EXTRAS | set(answers) | ({"axes"} if with_axes else set())
    unknown = sorted(str(key) for key in set(result) - known)
    if unknown:
        raise UnreadableError(f"The result has keys that a {kind} comparison does not: {', '.join(unknown)[:80]}.")
    if sum(key in result for key in answers) != 1:
        raise UnreadableError(f"The result must have {' or '.join(f'`{key}`' for key in answers)}, and only one.")


def _positions(answer: Any, kind: str, k: int) -> list[int]:
    """The display positions that share rank 1."""
    if kind == "pair" and answer == "tie":
        return [0, 1]
    positions = answer if isinstance(answer, list) and kind == "best_of_k" else [answer]
    if not positions:
        raise UnreadableError("`best` names no response.")
    for position in positions:
        if not _is_whole(position):
            raise UnreadableError(f"`{_ANSWERS[kind]}` is {named(position)}, not a position.")
        if not 0 <= position < k:
            raise UnreadableError(f"`{_ANSWERS[kind]}` is position {str(position)[:20]} of {k} responses.")
    if len(set(positions)) < len(positions):
        raise UnreadableError("`best` names a response twice.")
    return positions


def _ranks(value: Any, k: int) -> list[int]:
    if not isinstance(value, list):
        raise UnreadableError(f"`ranks` is {named(value)}, not a list.")
    if len(value) != k:
        raise UnreadableError(f"`ranks` has {len(value)} ranks for {k} responses.")
    problem = "ranks must be whole numbers" if not all(map(_is_whole, value)) else problem_with(value, "ranking")
    if problem:
        raise UnreadableError(f"`ranks` is no ranking: {problem}.")
    return value


def _ratings(value: Any, k: int) -> dict[str, list[int]]:
    if not isinstance(value, Mapping) or not value:
        raise UnreadableError(f"`ratings` is {'empty' if value == {} else named(value)}, not ratings by axis.")
    for axis, ratings in value.items():
        if not isinstance(ratings, list) or len(ratings) != k:
            raise UnreadableError(f"`ratings` on {str(axis)[:40]} are not a list of {k} ratings.")
        if not all(_is_whole(rating) and LOWEST_RATING <= rating <= HIGHEST_RATING for rating in ratings):
            raise UnreadableError(
                f"`ratings` on {str(axis)[:40]} are not whole numbers from {LOWEST_RATING} to {HIGHEST_RATING}."
            )
    return {_axis(axis): list(ratings) for axis, ratings in value.items()}


def deciding_axis(ratings: Mapping[str, Any], axes: Sequence[str]) -> str:
    """The axis of ``ratings`` that decides the ranks: the first of ``axes`` that was rated, else as by default."""
    return next((axis for axis in (*axes, OVERALL) if axis in ratings), min(ratings))


def _ab_axes(value: Any, k: int) -> dict[str, list[int]]:
    """The ranks on each axis of an A/B evaluation."""
    if not isinstance(value, Mapping):
        raise UnreadableError(f"`axes` is {named(value)}, not choices by axis.")
    if any(choice not in (0, 1, "tie") or isinstance(choice, bool | float) for choice in value.values()):
        raise UnreadableError('`axes` holds something else than 0, 1 and "tie".')
    return {_axis(axis): ranks_from_best(_positions(choice, "pair", k), k) for axis, choice in value.items()}


def _axis(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(AXIS_PATTERN, name):
        raise UnreadableError("An axis has a name that no axis can have.")
    return name


def _written(value: Any) -> str:
    _check_text(value, "text")
    if not value.strip():
        raise UnreadableError("`text` is empty.")
    return value


def _check_text(value: Any, key: str) -> None:
    if not isinstance(value, str):
        raise UnreadableError(f"`{key}` is {named(value)}, not a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnreadableError(f"`{key}` holds a character that Unicode does not have.") from None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
