"""Our own form of a judgment: one row says what one annotator decided about some responses."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, name_of, number_of, optional_text, time_of, whole_number
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, response_in, with_prompt
from rlhf_dagster.labeling.forms import FLAGS
from rlhf_dagster.records.answers import UnreadableError
from rlhf_dagster.records.kinds import RANKED_KINDS, problem_with
from rlhf_dagster.records.outcome import ranks_from_best

OUTCOMES = ("choice", "ranks", "ratings")
"""Keys of which a row has one: what was decided."""
KEYS = (
    *("comparison", "prompt", "responses", "annotator", *OUTCOMES, "kind", "order_known", "strength", "policies"),
    *("flags", "reason", "started_at", "submitted_at", "seconds", "metadata"),
)
_REQUIRED = ("prompt", "responses")


def parse_judgment(values: Mapping[str, Any]) -> JudgmentLine:
    """The judgment of a row; what is not one of KEYS goes to the metadata. Raises BadLineError."""
    values = with_prompt(values)
    _check_required(values)
    responses = responses_in(values["responses"])
    kind, ranks, ratings = _outcome(values, len(responses))
    return JudgmentLine(
        comparison=name_of(values, "comparison"),
        prompt=prompt_in(values),
        responses=responses,
        annotator=name_of(values, "annotator"),
        ranks=ranks,
        kind=kind,
        order_known=_order_known(values.get("order_known")),
        ratings=ratings,
        strength=_strength(values),
        policies=_policies(values.get("policies"), len(responses)),
        flags=_flags(values.get("flags")),
        reason=optional_text(values, "reason"),
        **times_of(values),
        metadata=metadata_of(values, KEYS) | _metadata(values.get("metadata")),
    )


def responses_in(value: Any) -> tuple[str, ...]:
    """Two or more texts, or lists of one assistant's message each; raises BadLineError for others."""
    if not isinstance(value, list) or len(value) < 2:
        raise BadLineError("`responses` is not a list of at least two texts")
    return tuple(response_in(text, f"`responses[{index}]`") for index, text in enumerate(value))


def times_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """``started_at``, ``submitted_at`` and ``seconds``, which are the time between them where they are not given."""
    started, submitted, seconds = (
        time_of(values, "started_at"),
        time_of(values, "submitted_at"),
        number_of(values, "seconds"),
    )
    if started and submitted and submitted < started:
        raise BadLineError("`submitted_at` is before `started_at`")
    if seconds is not None and seconds < 0:
        raise BadLineError("`seconds` is less than 0")
    if seconds is None and started and submitted:
        seconds = (submitted - started).total_seconds()
    return {"started_at": started, "submitted_at": submitted, "seconds": seconds}


def metadata_of(values: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """What a row says under other keys than those ``known``; gaps are left out."""
    return {key: value for key, value in values.items() if key not in known and not is_missing(value)}


def dense_ranks(order: Sequence[float]) -> tuple[int, ...]:
    """Ranks without gaps, from numbers of which the lowest is the best."""
    places = sorted(set(order))
    return tuple(places.index(place) + 1 for place in order)


def kind_of(ranks: Sequence[int], k: int) -> str:
    """The kind of comparison whose outcome these ranks of ``k`` responses can be, the simplest of them."""
    return "pair" if k == 2 else "ranking" if max(ranks, default=1) > 2 else "best_of_k"


def _check_required(values: Mapping[str, Any]) -> None:
    missing = [key for key in _REQUIRED if key not in values]
    if missing:
        raise BadLineError(f"`{missing[0]}` is missing")
    given = [key for key in OUTCOMES if key in values]
    # A table has every column in every row: a null beside an outcome says nothing.
    said = [key for key in given if not is_missing(values[key])]
    if not given:
        raise BadLineError("`choice` is missing; `ranks` or `ratings` may stand in its place")
    if len(said) > 1:
        raise BadLineError(f"both `{said[0]}` and `{said[1]}` are given; leave one out")


def _outcome(
    values: Mapping[str, Any], k: int
) -> tuple[str, tuple[int, ...] | None, Mapping[str, tuple[int, ...]] | None]:
    """The kind, the ranks and the ratings."""
    key = next((key for key in OUTCOMES if not is_missing(values.get(key))), "choice")
    given = optional_text(values, "kind")
    ratings = None
    if key == "ratings":
        ranks, ratings, derived = *_ratings(values[key], k), "rating"
    elif key == "ranks":
        ranks = _ranks(values[key], k)
        derived = "pair" if k == 2 else "ranking"
    else:
        ranks = _chosen(values.get(key), k)
        derived = "pair" if k == 2 else "best_of_k"
    _check_kind(given, derived, ranks, k)
    return given or derived, ranks, ratings


def _check_kind(given: str, derived: str, ranks: tuple[int, ...] | None, k: int) -> None:
    if not given:
        return
    if given not in RANKED_KINDS:
        raise BadLineError(f"`kind` is {given[:40]!r}; known: {', '.join(RANKED_KINDS)}")
    if (given == "rating") != (derived == "rating") and ranks is not None:
        raise BadLineError("the kind `rating` goes with `ratings`, and they with it")
    problem = problem_with(ranks or range(1, 1 + min(k, 2)), given)
    if problem:
        raise BadLineError(f"`kind` is {given}, and {problem}")


def _chosen(value: Any, k: int) -> tuple[int, ...] | None:
    if is_missing(value):
        return None
    best = range(k) if value == "tie" else [_choice(one, k) for one in (value if isinstance(value, list) else [value])]
    if not best:
        raise BadLineError("`choice` is an empty list; `null` says that the annotator could not decide")
    return tuple(ranks_from_best(best, k))


def _choice(value: Any, k: int) -> int:
    number = whole_number(value)
    if number is None:
        raise BadLineError('`choice` is neither a number, a list of numbers, "tie" nor null')
    if not 0 <= number < k:
        raise BadLineError(f"`choice` names response {str(number)[:20]}, but there are only 0 to {k - 1}")
    return number


def _ranks(value: Any, k: int) -> tuple[int, ...]:
    numbers = [whole_number(one) for one in value] if isinstance(value, list) else []
    if len(numbers) != k:
        raise BadLineError(f"`ranks` is not a list of {k} ranks, one for each response")
    if None in numbers:
        raise BadLineError("`ranks` holds something else than whole numbers")
    return dense_ranks([number for number in numbers if number is not None])


def _ratings(value: Any, k: int) -> tuple[tuple[int, ...], Mapping[str, tuple[int, ...]]]:
    """The ranks that the deciding axis gives, and the ratings by axis."""
    if isinstance(value, Mapping):
        value = {axis: _whole(given) for axis, given in value.items() if not is_missing(given)}
    try:
        answer = RANKED_KINDS["rating"].read(value, k)
    except UnreadableError as error:
        raise BadLineError(str(error).rstrip(".")) from None
    return tuple(answer.ranks or ()), {axis: tuple(given) for axis, given in answer.axes.items()}


def _whole(given: Any) -> Any:
    """Ratings that a table has as floats as whole numbers."""
    if not isinstance(given, list):
        return given
    numbers = [whole_number(one) for one in given]
    return given if None in numbers else numbers


def _order_known(value: Any) -> bool:
    if is_missing(value) or isinstance(value, bool):
        return value is not False
    raise BadLineError("`order_known` is neither true nor false")


def _strength(values: Mapping[str, Any]) -> float | None:
    strength = number_of(values, "strength")
    if strength is not None and not 0 <= strength <= 1:
        raise BadLineError(f"`strength` is {strength:g}, which is no number from 0 to 1")
    return strength


def _policies(value: Any, k: int) -> tuple[str, ...]:
    if is_missing(value):
        return ()
    if not isinstance(value, list) or len(value) != k:
        raise BadLineError(f"`policies` is not a list of {k} names, one for each response")
    return tuple(name_of({"policies": one}, "policies") for one in value)


def _flags(value: Any) -> tuple[str, ...]:
    if is_missing(value):
        return ()
    if not isinstance(value, list) or not all(flag in FLAGS for flag in value):
        raise BadLineError(f"`flags` is not a list out of {', '.join(FLAGS)}")
    return tuple(dict.fromkeys(value))


def _metadata(value: Any) -> Mapping[str, Any]:
    if is_missing(value):
        return {}
    if not isinstance(value, Mapping):
        raise BadLineError("`metadata` is not an object")
    return value
