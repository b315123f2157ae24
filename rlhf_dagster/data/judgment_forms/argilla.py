"""Argilla's exports: records with fields and responses of several users, as JSON or as the columns of a data set."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, LeftOut, RowContent, RowValues
from rlhf_dagster.data.judgment_forms.columns import prompt_from, response_from, wide_responses
from rlhf_dagster.data.judgment_forms.controls import PageAnswers, answered_outcome, ranks_in_order, rating_in, rest_of
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, name_of, plain
from rlhf_dagster.data.lines import BadLineError

_ENDING = ".responses"
_SUBMITTED = "submitted"
_TEXTS = ("reason", "rationale", "comment", "explanation", "feedback")

Given = tuple[str, str, Any, str]
"""User, question, value and status of one response."""


class ArgillaForm(JudgmentForm):
    """Records with what each user answered. Drafts and what was discarded are no judgments, and counted."""

    name = "argilla"
    shape = "`fields` and `responses`; or the fields' columns with `QUESTION.responses` and `QUESTION.responses.users`"

    kept = ("answers",)

    def fits(self, row: RowValues) -> bool:
        return _is_record(row) or any(column.endswith(_ENDING) for column in row) or bool(_older(row))

    def lines(self, row: RowValues) -> Iterator[RowContent]:
        fields, given = _record(row) if _is_record(row) else _columns(row)
        if not given:
            yield LeftOut("records without a response")
        by_user: dict[str, list[Given]] = {}
        for one in given:
            by_user.setdefault(one[0], []).append(one)
        for user, answers in by_user.items():
            status = next((one[3] for one in answers if one[3] != _SUBMITTED), "")
            yield LeftOut(f"responses with the status {status[:20]}") if status else _judged(row, fields, user, answers)


def _is_record(row: RowValues) -> bool:
    return isinstance(row.get("fields"), Mapping) and "responses" in row


def _older(row: RowValues) -> list[str]:
    """Columns of questions as Argilla 1 wrote them: users, values and statuses in an object or a list of objects."""
    return [name for name, value in row.items() if _is_answers(value)]


def _is_answers(value: Any) -> bool:
    one = value[0] if isinstance(value, list) and value else value
    return isinstance(one, Mapping) and {"user_id", "value", "status"} <= set(one)


def _record(row: RowValues) -> tuple[RowValues, list[Given]]:
    responses = row["responses"]
    if not isinstance(responses, Mapping):
        raise BadLineError("`responses` is not an object of questions")
    given = [
        (_user(one.get("user_id")), question, one.get("value"), str(one.get("status") or _SUBMITTED))
        for question, answers in responses.items()
        for one in answers or []
        if isinstance(one, Mapping)
    ]
    return row["fields"], given


def _columns(row: RowValues) -> tuple[RowValues, list[Given]]:
    given: list[Given] = []
    for column in row:
        if column.endswith(_ENDING) and not is_missing(row[column]):
            values = row[column]
            users = row.get(f"{column}.users") or [""] * len(values)
            states = row.get(f"{column}.status") or [_SUBMITTED] * len(values)
            question = column.removesuffix(_ENDING)
            given += [
                (_user(user), question, value, str(status))
                for user, value, status in zip(users, values, states, strict=False)
            ]
    for column in _older(row):
        given += [(_user(one["user_id"]), column, one["value"], str(one["status"])) for one in _objects(row[column])]
    asked = {column.split(".")[0] for column in row if "." in column} | set(_older(row))
    return {name: value for name, value in row.items() if name.split(".")[0] not in asked}, given


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """A list of objects, also where it is written as an object of lists."""
    if isinstance(value, list):
        return value
    return [dict(zip(value, one, strict=True)) for one in zip(*value.values(), strict=False)]


def _user(value: Any) -> str:
    return "" if is_missing(value) else str(value)


def _judged(row: RowValues, fields: RowValues, user: str, given: list[Given]) -> RowContent:
    try:
        return _line(row, fields, user, given)
    except BadLineError as error:
        return error


def _line(row: RowValues, fields: RowValues, user: str, given: list[Given]) -> JudgmentLine:
    wide = wide_responses(fields)
    if len(wide) < 2:
        raise BadLineError("the fields have no columns such as `response-1` and `response-2`")
    prompt, used = prompt_from(fields)
    answers = PageAnswers()
    for _, question, value, _ in given:
        _add(answers, question, value)
    rest = {key: value for key, value in fields.items() if key not in {*used, *wide.values()}}
    about = row.get("metadata")
    return JudgmentLine(
        comparison=name_of(row, "comparison"),
        prompt=prompt,
        responses=tuple(response_from(fields[column], f"`{column}`") for column in wide.values()),
        annotator=user,
        order_known=False,
        metadata=plain({**rest, **(about if isinstance(about, Mapping) else {}), **rest_of(answers)}),
        **answered_outcome(answers, tuple(wide), tuple(wide.values())),
    )


def _add(answers: PageAnswers, question: str, value: Any) -> None:
    if isinstance(value, list):
        answers.orders[question] = ranks_in_order(value)
    elif rating_in(value) is not None and not isinstance(value, str):
        answers.ratings[question] = rating_in(value) or 0.0
    elif question.lower() in _TEXTS:
        answers.texts[question] = str(value)
    else:
        answers.choices[question] = value
