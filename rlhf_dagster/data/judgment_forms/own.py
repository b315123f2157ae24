"""Our own form of a judgment: one row says what one annotator decided about some responses."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowContent, RowValues
from rlhf_dagster.data.judgment_forms.plain import PlainRows
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, name_of, number_of, optional_text, plain, time_of, whole_number
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, response_in, with_prompt
from rlhf_dagster.data.reading.source import NumberedRow
from rlhf_dagster.labeling.forms import FLAGS
from rlhf_dagster.records.answers import UnreadableError
from rlhf_dagster.records.kinds import RANKED_KINDS, problem_with
from rlhf_dagster.records.outcome import ranks_from_best

_OUTCOMES = ("choice", "ranks", "ratings")
"""Keys of which a row has one: what was decided."""
_TIMES = ("started_at", "submitted_at", "seconds")
OWN_KEYS = frozenset(
    {"comparison", "prompt", "responses", "annotator", *_OUTCOMES, "kind", "order_known", "strength", "policies"}
    | {"flags", "reason", *_TIMES, "withdrawn", "metadata"}
)
_REQUIRED = ("prompt", "responses")
_IN_CELLS = ("responses", *_OUTCOMES, "order_known", "withdrawn", "policies", "flags", "metadata")


class OwnForm(JudgmentForm):
    name = "own"
    shape = "`prompt`, a list `responses`, and `choice`, `ranks` or `ratings`"

    def fits(self, row: RowValues) -> bool:
        # Other forms have `comparison`, `prompt`, `annotator` and the like beside columns of their own.
        decides = any(key in row for key in (*_OUTCOMES, "withdrawn"))
        return "responses" in row and (decides or len(row.keys() & set(OWN_KEYS)) > 3)

    def lines(self, row: RowValues) -> Iterator[JudgmentLine]:
        yield parse_judgment(row)

    def read(self, rows: Iterable[NumberedRow]) -> Iterator[tuple[int, RowContent]]:
        plain = PlainRows()
        for number, row in rows:
            judgment = None if isinstance(row, BadLineError) else plain.judgment(row)
            if judgment is None:
                yield from super().read([(number, row)])
            else:
                yield number, judgment


def parse_judgment(values: Mapping[str, Any]) -> JudgmentLine:
    """The judgment of a row; what is not one of OWN_KEYS goes to the metadata. Raises BadLineError."""
    values = _of_cells(with_prompt(values))
    said = _outcome_key(values)
    responses = responses_in(values["responses"])
    kind, ranks, ratings = _outcome(values, said, len(responses))
    return JudgmentLine(
        comparison=name_of(values, "comparison"),
        prompt=prompt_in(values),
        responses=responses,
        annotator=name_of(values, "annotator"),
        ranks=ranks,
        kind=kind,
        ratings=ratings,
        **{key: _OPTIONAL[key](values, len(responses)) for key in _OPTIONAL if key in values},
        **(times_of(values) if any(key in values for key in _TIMES) else {}),
        metadata=_kept(values) if "metadata" in values or values.keys() - OWN_KEYS else {},
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


def metadata_of(values: Mapping[str, Any], known: Set[str]) -> dict[str, Any]:
    """What a row says under other keys than those ``known``; gaps are left out."""
    return {key: value for key, value in values.items() if key not in known and not is_missing(value)}


def dense_ranks(order: Sequence[float]) -> tuple[int, ...]:
    """Ranks without gaps, from numbers of which the lowest is the best."""
    places = sorted(set(order))
    return tuple(places.index(place) + 1 for place in order)


def kind_of(ranks: Sequence[int], k: int) -> str:
    """The kind of comparison whose outcome these ranks of ``k`` responses can be, the simplest of them."""
    return "pair" if k == 2 else "ranking" if max(ranks, default=1) > 2 else "best_of_k"


def _of_cells(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``values`` of which a table of text has lists and objects as JSON in its cells, and gaps as empty ones."""
    cells = {key: _of_cell(values[key]) for key in _IN_CELLS if isinstance(values.get(key), str)}
    return {**values, **cells} if cells else values


def _of_cell(text: str) -> Any:
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value


def _outcome_key(values: Mapping[str, Any]) -> str:
    """The key that says what was decided; raises BadLineError where a key that a row must have is missing."""
    for key in _REQUIRED:
        if key not in values:
            raise BadLineError(f"`{key}` is missing")
    given = [key for key in _OUTCOMES if key in values]
    if not given and values.get("withdrawn") is not True:
        raise BadLineError("`choice` is missing; `ranks` or `ratings` may stand in its place")
    # A table has every column in every row: a null beside an outcome says nothing.
    said = [key for key in given if not is_missing(values[key])]
    if len(said) > 1:
        raise BadLineError(f"both `{said[0]}` and `{said[1]}` are given; leave one out")
    return said[0] if said else "choice"


def _outcome(
    values: Mapping[str, Any], key: str, k: int
) -> tuple[str, tuple[int, ...] | None, Mapping[str, tuple[int, ...]] | None]:
    """The kind, the ranks and the ratings that ``key`` says."""
    given = optional_text(values, "kind")
    ranks: tuple[int, ...] | None
    ranks, ratings, derived = None, None, "pair"
    if key == "ratings":
        ranks, ratings = _ratings(values[key], k)
        derived = "rating"
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


def _truth(values: Mapping[str, Any], key: str, otherwise: bool) -> bool:
    value = values[key]
    if is_missing(value) or isinstance(value, bool):
        return otherwise if is_missing(value) else value
    raise BadLineError(f"`{key}` is neither true nor false")


def strength_of(values: Mapping[str, Any]) -> float | None:
    """The number from 0 to 1 under `strength`; None if there is none; raises BadLineError for others."""
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


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the row says beside, and its `metadata`, which go before."""
    given = values.get("metadata")
    if not is_missing(given) and not isinstance(given, Mapping):
        raise BadLineError("`metadata` is not an object")
    kept: dict[str, Any] = plain({**metadata_of(values, OWN_KEYS), **(given if isinstance(given, Mapping) else {})})
    return kept


_OPTIONAL: dict[str, Callable[[Mapping[str, Any], int], Any]] = {
    "order_known": lambda values, k: _truth(values, "order_known", True),
    "withdrawn": lambda values, k: _truth(values, "withdrawn", False),
    "strength": lambda values, k: strength_of(values),
    "policies": lambda values, k: _policies(values["policies"], k),
    "flags": lambda values, k: _flags(values["flags"]),
    "reason": lambda values, k: optional_text(values, "reason"),
}
"""How each key is read that most rows lack, of a row with ``k`` responses."""
