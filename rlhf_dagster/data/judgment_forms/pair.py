"""Two responses in two columns, and a column that says which is better, or one for each judge."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowContent, RowValues
from rlhf_dagster.data.judgment_forms.choices import TIE, is_both_bad, position_of
from rlhf_dagster.data.judgment_forms.columns import (
    described,
    names_beside,
    numbers_in,
    prompt_from,
    response_from,
    wide_responses,
)
from rlhf_dagster.data.judgment_forms.outcomes import by_choice, by_scores
from rlhf_dagster.data.judgment_forms.own import strength_of
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, name_of, number_of, whole_number
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.records.chats import Prompt

WINNERS = (
    *("winner", "choice", "preference", "preferred", "preferred_response", "better", "better_response_id", "label"),
    *("labels", "human_preference", "annotation"),
)
_STRENGTHS = {"preference_strength": 3, "overall_preference": 3}
"""Columns with a number that is below 0 where the first response is better, and the largest that it can be."""
SCORES = ("score_{}", "score{}", "{}_score", "rating_{}", "reward_{}", "response_{}_score")
POLICY_COLUMNS = (
    *("model_{}", "model{}", "policy_{}", "{}_model", "generator_{}", "system{}id", "system_{}", "response_{}_model"),
    *("response{}_model", "answer_{}_model", "response_{}_source", "model_{}_name"),
)
_ANNOTATORS = tuple(f"annotator{number}" for number in range(1, 21))
_ONE_HOT = "winner_model_{}"


class PairForm(JudgmentForm):
    """Two responses side by side. In which order they were shown is not known unless `order_known` says so."""

    name = "pair"
    shape = "`response_a` and `response_b` (or 1 and 2), and `winner`, one column a judge, or scores"
    kept = tuple(pattern.format(mark) for pattern in SCORES for mark in "abAB012")

    def fits(self, row: RowValues) -> bool:
        wide = wide_responses(row)
        return len(wide) == 2 and _says_which(row, tuple(wide))

    def lines(self, row: RowValues) -> Iterator[RowContent]:
        wide = wide_responses(row)
        if len(wide) != 2:
            raise BadLineError("has no two columns such as `response_a` and `response_b`")
        prompt, responses, used = _contents(row, tuple(wide.values()))
        policies = names_beside(row, tuple(wide), POLICY_COLUMNS)
        used |= {*wide.values(), *policies, "order_known", "strength"}
        names = tuple(name_of(row, column) for column in policies)
        for judge, outcome, columns in _outcomes(row, wide):
            if isinstance(outcome, BadLineError):
                yield outcome
                continue
            fields = described(row, used | columns)
            fields |= {"annotator": judge} if judge else {}
            fields["order_known"] = row.get("order_known") in (True, "true", "True")
            yield JudgmentLine(prompt=prompt, responses=responses, policies=names, **outcome, **fields)


def _says_which(row: RowValues, marks: tuple[str, ...]) -> bool:
    columns = (*WINNERS, *_STRENGTHS, "annotator1", *(_ONE_HOT.format(mark) for mark in marks))
    return any(column in row for column in columns) or bool(names_beside(row, marks, SCORES))


def _contents(row: RowValues, columns: Sequence[str]) -> tuple[Prompt, tuple[str, str], set[str]]:
    """Prompt and responses, and the columns that they stand in besides ``columns``."""
    first, second = (_until_turn(row, row[column]) for column in columns)
    if _is_turns(first) and _is_turns(second) and len(first) > 1:
        return *_of_conversations(first, second), set()
    prompt, used = prompt_from(_unlisted(row))
    texts = tuple(_one_turn(row[column], column) for column in columns)
    return prompt, (texts[0], texts[1]), used


def _until_turn(row: RowValues, said: Any) -> Any:
    """A conversation up to the turn that was judged, where the row has its number, as MT-Bench does."""
    turn = whole_number(row.get("turn"))
    return said[: 2 * turn] if turn and isinstance(said, list) else said


def _is_turns(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, Mapping) for one in value)


def _of_conversations(first: list[Any], second: list[Any]) -> tuple[Prompt, tuple[str, str]]:
    """Of two conversations with two models: both were asked the same, and what is judged is all that they said.

    Where they have one turn, its answers are the responses. Where they go on, each model has answers of its own that
    the next question follows, so that the whole conversation after the first question is the response.
    """
    prompt, _ = prompt_from({"messages": first[:1]})
    if first[0] != second[0]:
        raise BadLineError("the two conversations begin with different messages")
    return prompt, (_told(first[1:]), _told(second[1:]))


def _told(turns: list[Any]) -> str:
    if len(turns) == 1:
        return response_from(turns, "the answer")
    names = {"user": "User", "assistant": "Assistant"}
    return "\n\n".join(f"{names.get(str(turn.get('role')), '')}: {turn.get('content')}" for turn in turns)


def _unlisted(row: RowValues) -> RowValues:
    """``row`` whose prompt, a JSON list of one turn in a cell, is that turn."""
    prompt = row.get("prompt")
    turns = _turns_of_cell(prompt)
    return {**row, "prompt": turns[0]} if turns and len(turns) == 1 else row


def _one_turn(value: Any, column: str) -> str:
    turns = _turns_of_cell(value)
    if turns and len(turns) == 1 and (turns[0] is None or isinstance(turns[0], str)):
        return turns[0] or ""
    return response_from("" if value is None else value, f"`{column}`")


def _turns_of_cell(value: Any) -> list[Any] | None:
    if not isinstance(value, str) or not value.startswith('["'):
        return None
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return turns if isinstance(turns, list) else None


_Outcome = tuple[str, dict[str, Any] | BadLineError, set[str]]
"""The judge's name, empty where it is in a column of its own, what was decided, and the columns that say so."""


def _outcomes(row: RowValues, wide: Mapping[str, str]) -> Iterator[_Outcome]:
    judges = [column for column in _ANNOTATORS if not is_missing(row.get(column))]
    if judges and _is_judgment(row[judges[0]], tuple(wide)):
        yield from ((judge, _of_judge(row, judge, wide), set(judges)) for judge in judges)
    else:
        yield _outcome(row, wide)


def _of_judge(row: RowValues, column: str, wide: Mapping[str, str]) -> dict[str, Any] | BadLineError:
    try:
        return _chosen(row, column, wide, zero_ties=True)
    except BadLineError as error:
        return error


def _is_judgment(value: Any, marks: tuple[str, ...]) -> bool:
    """Whether a column `annotator1` holds a judgment, and not a name."""
    return whole_number(value) is not None or str(value).strip().lower() in {*marks, TIE, "0"}


def _outcome(row: RowValues, wide: Mapping[str, str]) -> _Outcome:
    marks = tuple(wide)
    one_hot = names_beside(row, marks, (_ONE_HOT,))
    if one_hot:
        return "", _of_one_hot(row, one_hot), {*one_hot, "winner_tie"}
    degrees = next((column for column in _STRENGTHS if not is_missing(row.get(column))), "")
    if degrees:
        return "", _of_degrees(row, degrees), {degrees}
    scores = names_beside(row, marks, SCORES)
    values = numbers_in(row, scores) if scores else None
    column = next((name for name in WINNERS if name in row), "")
    if values and (not column or whole_number(row[column]) is not None):
        # A number in `labels` may mean either response; scores beside it say which.
        return "", by_scores(values), {column} if column else set()
    if not column:
        raise BadLineError("no column says which response is better, such as `winner`")
    return "", _chosen(row, column, wide) | {"strength": strength_of(row)}, {column}


def _chosen(row: RowValues, column: str, wide: Mapping[str, str], zero_ties: bool = False) -> dict[str, Any]:
    marks, value = tuple(wide), row[column]
    names = [name_of(row, name) for name in names_beside(row, marks, POLICY_COLUMNS)]
    # The winner may be named as the model.
    mark = marks[names.index(value)] if value and names.count(value) == 1 else value
    try:
        choice = position_of(mark, marks, tuple(wide.values()), zero_ties)
    except BadLineError as error:
        raise BadLineError(f"`{column}`: {error}") from None
    return by_choice(choice, len(wide)) | ({"flags": ("both_bad",)} if is_both_bad(value) else {})


def _of_one_hot(row: RowValues, columns: Sequence[str]) -> dict[str, Any]:
    chosen = [index for index, column in enumerate(columns) if number_of(row, column) == 1]
    tie = number_of(row, "winner_tie") == 1
    if len(chosen) + tie != 1:
        raise BadLineError(f"not one of {', '.join(columns)} and `winner_tie` is 1")
    return by_choice(TIE if tie else chosen[0], len(columns))


def _of_degrees(row: RowValues, column: str) -> dict[str, Any]:
    """A preference from -3 to 3: below 0 the first response is better."""
    degree, most = number_of(row, column) or 0.0, _STRENGTHS[column]
    if abs(degree) > most:
        raise BadLineError(f"`{column}` is {degree:g}, which is not from -{most} to {most}")
    choice = by_choice(TIE if degree == 0 else int(degree > 0), 2)
    return choice | {"strength": abs(degree) / most}
