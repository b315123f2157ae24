"""Several completions of a prompt with scores, ranks or ratings by axis."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowValues
from rlhf_dagster.data.judgment_forms.columns import described, prompt_from, response_from
from rlhf_dagster.data.judgment_forms.outcomes import by_order, by_ratings, by_scores, checked_count, ratings_in
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, name_of, number_of
from rlhf_dagster.data.lines import BadLineError

_LISTS = ("completions", "answers", "responses", "candidates", "generations", "outputs", "all_responses")
_TEXTS = ("response", "answer", "completion", "text", "content", "output", "generated_text", "generation")
_RANKS = ("rank", "ranking")
_SCORES = ("overall_score", "score", "overall", "reward", "rating")
_AXES = ("annotations", "ratings", "scores", "axes")
_POLICIES = ("model", "policy", "system", "source", "generator", "model_name")
_BESIDE = {
    "rank": ("ranks", "ranking", "rankings"),
    "score": ("scores", "ratings", "rewards", "rating"),
    "policy": ("models", "policies", "generation_models", "model_names", "systems"),
}
"""Columns with a list that runs beside a list of texts."""


class CompletionsForm(JudgmentForm):
    """A list of completions. Ratings by axis, where all are rated, are ratings; else ranks or scores give the order."""

    name = "completions"
    shape = "a list `completions`, each with a text and a score, a rank or ratings by axis; or lists side by side"

    kept = ("scores",)

    def fits(self, row: RowValues) -> bool:
        column = _list_in(row)
        return bool(column) and (isinstance(row[column][0], Mapping) or _has_beside(row))

    def lines(self, row: RowValues) -> Iterator[JudgmentLine]:
        column = _list_in(row)
        if not column:
            raise BadLineError(f"has no list of completions, such as `{_LISTS[0]}`")
        given, beside = _completions(row, column)
        checked_count(len(given))
        prompt, used = prompt_from(row)
        fields = described(row, used | {column} | beside)
        texts = tuple(_text(one, f"`{column}[{index}]`") for index, one in enumerate(given))
        outcome, said = _outcome(given)
        fields["metadata"] |= said
        policies = tuple(_named(one) for one in given)
        yield JudgmentLine(
            prompt=prompt,
            responses=texts,
            order_known=False,
            policies=policies if any(policies) else (),
            **outcome,
            **fields,
        )


def _list_in(row: RowValues) -> str:
    """The column with a list of texts or of objects."""
    found = (name for name in _LISTS if isinstance(row.get(name), list) and row[name])
    return next(found, "")


def _has_beside(row: RowValues) -> bool:
    columns = (*_BESIDE["rank"], *_BESIDE["score"])
    return any(isinstance(row.get(name), list) for name in columns)


def _completions(row: RowValues, column: str) -> tuple[list[Mapping[str, Any]], set[str]]:
    """Each completion with what is said of it, and the columns beside that say it."""
    given = [one if isinstance(one, Mapping) and "role" not in one else {"text": one} for one in row[column]]
    used = set()
    for ours, names in _BESIDE.items():
        name = next((name for name in names if isinstance(row.get(name), list)), "")
        if not name or name == column:
            continue
        if len(row[name]) != len(given):
            raise BadLineError(f"`{name}` has {len(row[name])} values for {len(given)} responses")
        used.add(name)
        given = [{**one, ours: value} for one, value in zip(given, row[name], strict=True)]
    return given, used


def _text(one: Mapping[str, Any], what: str) -> str:
    name = next((name for name in _TEXTS if name in one), "")
    if not name:
        raise BadLineError(f"{what} has no text, such as `{_TEXTS[0]}`")
    return response_from("" if one[name] is None else one[name], what)


def _named(one: Mapping[str, Any]) -> str:
    return next((name_of(one, name) for name in _POLICIES if isinstance(one.get(name), str)), "")


def _outcome(given: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was decided, and the numbers that it comes from, for the metadata."""
    ranks, scores = _numbers(given, _RANKS), _numbers(given, _SCORES)
    said = {} if scores is None else {"scores": scores}
    ratings = ratings_in([_axes(one) for one in given])
    if ratings:
        whole = ratings_in([{"overall": score} for score in scores]) if scores and "overall" not in ratings else {}
        return by_ratings(ratings | whole), said
    if ranks is not None:
        return by_order(ranks), said
    if scores is None:
        raise BadLineError("the completions have neither ranks nor scores, or one of them lacks its own")
    return by_scores(scores), said


def _axes(one: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((one[name] for name in _AXES if isinstance(one.get(name), Mapping)), {})


def _numbers(given: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[float] | None:
    """The numbers that all completions have under the first of ``names`` that all have."""
    for name in names:
        if all(not is_missing(one.get(name)) and not isinstance(one[name], Mapping | list) for one in given):
            found = [number_of(one, name) for one in given]
            if None not in found:
                return [number for number in found if number is not None]
    return None
