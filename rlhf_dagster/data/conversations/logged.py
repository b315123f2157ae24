"""The lines of a log in OpenAI's form: a request with its response, or thumbs for a response."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.data.judgment_forms.base import RowValues
from rlhf_dagster.data.line_values import json_text, name_of, optional_text, whole_number
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in
from rlhf_dagster.data.text_forms import liked_of
from rlhf_dagster.records.chats import Chat, Prompt

_LONGEST = 100_000
"""Characters of a conversation; a longer one is read by no model here, and searching it would take minutes."""
_AGREED = ("true", "yes", "1")


@dataclass(frozen=True)
class Logged:
    """A request and what was answered."""

    prompt: Prompt
    responses: tuple[str, ...]
    """One for each choice; empty where the line has none."""
    user: str
    """As the line names them; empty where it does not."""
    consent: bool
    policy_id: str
    response_id: str
    liked: bool | None
    """What somebody thought of the first response, where the line itself says so."""


@dataclass(frozen=True)
class Thumbs:
    """What somebody thought of a response that another line holds."""

    response_id: str
    choice: int
    """Which of the response's choices, counted from 0."""
    liked: bool
    user: str


def line_of_log(line: RowValues) -> Logged | Thumbs:
    """What a line says; raises BadLineError where it is neither of the two."""
    feedback = line.get("feedback")
    return _thumbs(line, feedback) if isinstance(feedback, dict) else _conversation(line)


def _thumbs(line: RowValues, feedback: RowValues) -> Thumbs:
    response_id, liked = name_of(feedback, "id"), liked_of(feedback)
    choice = whole_number(feedback.get("choice", 0))
    if not response_id or liked is None or choice is None or choice < 0:
        raise BadLineError("`feedback` does not say which response (`id`) and whether it is liked (`thumbs`)")
    return Thumbs(response_id, choice, liked, name_of(line, "user"))


def _conversation(line: RowValues) -> Logged:
    request = _object(line, "request") or line
    values = _with_answer(request, line)
    response = values.get("response")
    answer: RowValues = response if isinstance(response, dict) else {}
    found = Logged(
        prompt=_prompt(values),
        responses=_responses(response),
        user=_first_name((line, "user"), (request, "user"), (request, "safety_identifier")),
        consent=_consents(line, request),
        policy_id=_first_name((line, "policy"), (answer, "model"), (line, "model")),
        response_id=_first_name((line, "id"), (answer, "id")),
        liked=liked_of(line),
    )
    if len(str(found.prompt)) + sum(map(len, found.responses)) > _LONGEST:
        raise BadLineError(f"the conversation is longer than {_LONGEST:,} characters")
    return found


def _with_answer(request: RowValues, line: RowValues) -> RowValues:
    """The request with its `response`, which may stand beside it, or be the last of its messages."""
    response = line.get("response", {"choices": line["choices"]} if "choices" in line else None)
    if response is not None:
        return {**request, "response": response}
    messages = request.get("messages")
    if isinstance(messages, list) and messages and _role(messages[-1]) == "assistant":
        return {**request, "messages": messages[:-1], "response": {"choices": messages[-1:]}}
    return request


def _prompt(values: RowValues) -> Prompt:
    messages = values.get("messages")
    if messages is None and "prompt" in values:
        return prompt_in(values)
    if not isinstance(messages, list):
        raise BadLineError("there are no `messages` and no `prompt`")
    return prompt_in({"messages": [_known_role(one) for one in messages]}, "messages")


def _known_role(message: Any) -> Any:
    """OpenAI's newer name of the role `system` is `developer`."""
    return {**message, "role": "system"} if _role(message) == "developer" else message


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _responses(response: Any) -> tuple[str, ...]:
    if response is None:
        return ()
    if not isinstance(response, dict):
        return (json_text(response, "`response`"),)
    choices = response.get("choices")
    return tuple(map(_text, choices)) if isinstance(choices, list) else ()


def _text(choice: Any) -> str:
    """The text of a choice or of a message; empty where it has none, as where a tool was called."""
    inner = choice.get("message", choice) if isinstance(choice, dict) else {}
    holder = inner if isinstance(inner, dict) else {}
    return optional_text(holder, "content") or optional_text(holder, "text")


def _consents(line: RowValues, request: RowValues) -> bool:
    said = (line, _object(line, "metadata"), _object(request, "metadata"))
    value = next((one["consent"] for one in said if one.get("consent") is not None), False)
    return str(value).strip().lower() in _AGREED


def _first_name(*places: tuple[RowValues, str]) -> str:
    return next((name for values, key in places if (name := name_of(values, key))), "")


def _object(values: RowValues, key: str) -> Mapping[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def turns_in(prompt: Prompt) -> list[tuple[str, str]]:
    """Roles and contents of a prompt's messages without those of the system."""
    if not isinstance(prompt, Chat):
        return [("user", prompt)]
    return [(one.role, one.content) for one in prompt.messages if one.role != "system"]


def opening_of(prompt: Prompt) -> str:
    """The first turn, which stays the same when a conversation goes on; it decides the split where nobody is known."""
    return turns_in(prompt)[0][1]
