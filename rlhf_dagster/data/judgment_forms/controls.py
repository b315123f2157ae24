"""PageAnswers to the questions of a labelling page, each with its name, as one judgment.

Label Studio calls the questions controls, Argilla questions: a choice among the responses, a rating of each, an order,
and words.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_dagster.data.judgment_forms.choices import NO_DECISION, is_both_bad, position_of
from rlhf_dagster.data.judgment_forms.outcomes import axis_name, by_choice, by_order, by_ratings, by_scores, ratings_in
from rlhf_dagster.data.line_values import number_of, plain, whole_number
from rlhf_dagster.data.lines import BadLineError

_REASONS = ("reason", "rationale", "comment", "explanation", "feedback", "justification", "why")
_OVERALL = ("overall", "preference", "preferred", "choice", "better", "best", "winner")


@dataclass
class PageAnswers:
    """What one person answered."""

    texts: dict[str, str] = field(default_factory=dict)
    choices: dict[str, Any] = field(default_factory=dict)
    ratings: dict[str, float] = field(default_factory=dict)
    """By the control's name, or `response.axis` where the control says which response it rates."""
    orders: dict[str, dict[str, int]] = field(default_factory=dict)
    """The rank of each item that was ranked."""


def answered_outcome(answers: PageAnswers, marks: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    """Fields of a JudgmentLine, with what decided nothing as metadata; raises BadLineError where nothing is decided.

    An order decides before a choice, and a choice before ratings.
    """
    if any(value == "cannot_decide" for value in answers.choices.values()):
        return by_choice(NO_DECISION, len(marks)) | {"reason": _reason(answers)}
    outcome = _of_order(answers, marks, columns) or _of_choice(answers, marks, columns) or _of_ratings(answers, marks)
    if not outcome:
        raise BadLineError("no answer says which response is better")
    return {"reason": _reason(answers), **outcome}


def _reason(answers: PageAnswers) -> str:
    """The words under a name that says so; where none does, those that are there first."""
    reasons = [text for name, text in answers.texts.items() if name.lower() in _REASONS]
    return "\n".join(reasons) or next(iter(answers.texts.values()), "")


def rest_of(answers: PageAnswers) -> dict[str, Any]:
    """All that was answered, for the metadata."""
    given = {**answers.choices, **answers.ratings, **answers.orders}
    return {"answers": plain(given)} if len(given) > 1 else {}


def _of_order(answers: PageAnswers, marks: Sequence[str], columns: Sequence[str]) -> dict[str, Any] | None:
    for ranks in answers.orders.values():
        placed = {position_of(item, marks, columns): rank for item, rank in ranks.items()}
        if set(placed) == set(range(len(marks))):
            return by_order([placed[index] for index in range(len(marks))])
        raise BadLineError(f"{len(placed)} of {len(marks)} responses have a rank")
    return None


def _of_choice(answers: PageAnswers, marks: Sequence[str], columns: Sequence[str]) -> dict[str, Any] | None:
    named = sorted(answers.choices, key=lambda name: name.lower() not in _OVERALL)
    for name in named:
        value = answers.choices[name]
        try:
            choice = position_of(value, marks, columns)
        except BadLineError:
            if name.lower() in _OVERALL or len(named) == 1:
                raise BadLineError(f"`{name}`: {str(value)[:40]!r} names none of the responses") from None
            continue
        return by_choice(choice, len(marks)) | ({"flags": ("both_bad",)} if is_both_bad(value) else {})
    return None


def _of_ratings(answers: PageAnswers, marks: Sequence[str]) -> dict[str, Any] | None:
    """Of ratings that name the response that they are of: on axes as far as tables hold them, else as an order."""
    rated: list[dict[str, float]] = [{} for _ in marks]
    for name, value in answers.ratings.items():
        mark, axis = _parts(name, marks)
        if mark:
            rated[list(marks).index(mark)][axis_name(axis) or "overall"] = value
    ratings = ratings_in(rated)
    if ratings:
        return by_ratings(ratings)
    common = set.intersection(*(set(one) for one in rated))
    return by_scores([one[min(common)] for one in rated]) if len(common) == 1 else None


def _parts(name: str, marks: Sequence[str]) -> tuple[str, str]:
    """Which response a control is about, and the axis: `a_helpful`, `helpful-response-2`, `rating_b`."""
    parts = [part for part in re.split(r"[^a-z0-9]+|(?<=[a-z])(?=\d)", name.lower()) if part]
    found = [part for part in parts if part in marks]
    if len(found) != 1:
        return "", ""
    rest = [part for part in parts if part != found[0] and part not in ("response", "rating", "answer", "score")]
    return found[0], "_".join(rest)


def rating_in(value: Any) -> float | None:
    """A rating as a number; None where it is none."""
    try:
        return number_of({"rating": value}, "rating")
    except BadLineError:
        return None


def ranks_in_order(items: Sequence[Any]) -> dict[str, int]:
    """The rank of each item of a list from the best to the worst; items in a list of their own tie."""
    ranks: dict[str, int] = {}
    for rank, item in enumerate(items, start=1):
        if isinstance(item, Mapping):  # {"value": "response-1", "rank": 2}
            ranks[str(item.get("value"))] = whole_number(item.get("rank")) or rank
        else:
            ranks |= dict.fromkeys(map(str, item) if isinstance(item, list) else [str(item)], rank)
    return ranks
