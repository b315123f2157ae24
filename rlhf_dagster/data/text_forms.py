"""Prompts, demonstrations and feedback from the forms in which people have them."""

from collections.abc import Callable
from typing import Any

from rlhf_dagster.data.judgment_forms.base import RowValues
from rlhf_dagster.data.judgment_forms.columns import prompt_from, response_from
from rlhf_dagster.data.line_records import DemonstrationLine, FeedbackLine, PromptLine
from rlhf_dagster.data.line_values import is_missing, name_of, number_of, optional_text
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import shared_messages, with_response

_CHATS = ("messages", "conversations")
_RESPONSES = ("response", "completion", "output", "answer")
_LIKED = ("label", "liked", "thumbs_up", "thumbs", "kto_tag", "feedback", "rating", "vote")
_YES = {"true", "1", "+1", "up", "thumbs_up", "thumbs up", "like", "liked", "good", "👍"}
_NO = {"false", "0", "-1", "down", "thumbs_down", "thumbs down", "dislike", "disliked", "bad", "👎"}
_ABOUT = {"source", "user"}


def prompt_line_of(row: RowValues) -> tuple[PromptLine, set[str]]:
    """The prompt of a row, and the columns that it stands in; raises BadLineError."""
    prompt, used = prompt_from(row)
    return PromptLine(prompt, optional_text(row, "source"), name_of(row, "user")), used | _ABOUT


def demonstration_line_of(row: RowValues) -> tuple[DemonstrationLine, set[str]]:
    """A prompt with its response: two columns, an instruction with its output, or messages that end with the answer."""
    values, chat = _split(row)
    prompt, used = prompt_from(values)
    column, response = _response(values)
    if not response.strip():
        raise BadLineError(f"`{column}` is empty")
    line = DemonstrationLine(prompt, response, optional_text(row, "source"), name_of(row, "user"))
    return line, used | {column, chat} | _ABOUT


def feedback_line_of(row: RowValues) -> tuple[FeedbackLine, set[str]]:
    """A response that somebody liked or did not; raises BadLineError."""
    values, chat = _split(row)
    prompt, used = prompt_from(values)
    column, response = _response(values)
    liked = _liked_column(row)
    if not liked:
        raise BadLineError("`label` is missing")
    weight = number_of(row, "weight")
    line = FeedbackLine(
        prompt, response, _is_liked(row[liked], liked), 1.0 if weight is None else weight,
        name_of(row, "user"), optional_text(row, "source"),
    )  # fmt: skip
    if line.weight <= 0:
        raise BadLineError(f"`weight` is {line.weight:g}, which is not above 0")
    return line, used | {column, chat, liked, "weight"} | _ABOUT


def liked_of(row: RowValues) -> bool | None:
    """Whether somebody liked a response; None where the row does not say; raises BadLineError."""
    column = _liked_column(row)
    return _is_liked(row[column], column) if column else None


def fitting_command(rows: list[RowValues], kind: str) -> str:
    """The other kind of record that most of ``rows`` are; empty if they are none."""
    found = kind_of_texts(rows, without=kind)
    return "" if found == "prompts" else found


def kind_of_texts(rows: list[RowValues], without: str = "") -> str:
    """What most of ``rows`` are: feedback, demonstrations or, with less in them, prompts; empty if they are neither."""
    makers: dict[str, Callable[[RowValues], Any]] = {
        "feedback": feedback_line_of,
        "demonstrations": demonstration_line_of,
        "prompts": prompt_line_of,
    }
    for name, make in makers.items():
        if name != without and rows and 2 * sum(_can(make, row) for row in rows) > len(rows):
            return name
    return ""


def _can(make: Callable[[RowValues], Any], row: RowValues) -> bool:
    try:
        make(row)
    except BadLineError:
        return False
    return True


def _split(row: RowValues) -> tuple[RowValues, str]:
    """``row`` with prompt and response in place of a chat that ends with the response, and the chat's column."""
    column = next((name for name in _CHATS if isinstance(row.get(name), list)), "")
    if not column:
        return row, ""
    rest = {name: value for name, value in row.items() if name not in {column, "prompt"}}
    return with_response({**rest, "messages": shared_messages(row[column])}), column


def _response(row: RowValues) -> tuple[str, str]:
    column = next((name for name in _RESPONSES if not is_missing(row.get(name))), "")
    if not column:
        raise BadLineError("`response` is missing")
    return column, response_from(row[column], f"`{column}`")


def _liked_column(row: RowValues) -> str:
    return next((name for name in _LIKED if not is_missing(row.get(name))), "")


def _is_liked(value: Any, column: str) -> bool:
    if isinstance(value, bool):
        return value
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    if text not in _YES | _NO:
        raise BadLineError(f"`{column}` is {str(value)[:40]!r}, which is neither liked nor disliked")
    return text in _YES
