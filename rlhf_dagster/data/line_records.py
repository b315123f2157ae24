"""The records that a line can hold, checked key by key."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rlhf_dagster.data.line_values import json_text, optional_text, text_of
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, response_in, with_prompt, with_response
from rlhf_dagster.records.chats import Prompt


@dataclass(frozen=True)
class PromptLine:
    prompt: Prompt
    source: str
    """Empty if the line names none."""
    user: str


@dataclass(frozen=True)
class DemonstrationLine:
    prompt: Prompt
    response: str
    source: str
    user: str


@dataclass(frozen=True)
class JudgmentLine:
    comparison: str
    prompt: Prompt
    responses: tuple[str, ...]
    """In the order shown."""
    annotator: str
    """The name in the file. Only the key file keeps it; elsewhere there is a pseudonym."""
    choice: int | str | None
    """Index into ``responses``, ``tie``, or None for `cannot decide`."""
    reason: str
    started_at: datetime | None
    submitted_at: datetime | None

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.submitted_at is None:
            return None
        return (self.submitted_at - self.started_at).total_seconds()


@dataclass(frozen=True)
class GoldLine:
    """A comparison whose best response is known."""

    prompt: Prompt
    responses: tuple[str, ...]
    best: int


def parse_gold(values: Mapping[str, Any]) -> GoldLine:
    values = with_prompt(values)
    _check_keys(values, required=("prompt", "responses", "choice"), optional=())
    responses = _responses(values["responses"])
    choice = _choice(values["choice"], len(responses))
    if not isinstance(choice, int):
        raise BadLineError("a gold question has one best response: `choice` must be its number")
    return GoldLine(prompt_in(values), responses, choice)


def parse_prompt(values: Mapping[str, Any]) -> PromptLine:
    values = with_prompt(values)
    _check_keys(values, required=("prompt",), optional=("source", "user"))
    return PromptLine(prompt_in(values), optional_text(values, "source"), optional_text(values, "user"))


def parse_demonstration(values: Mapping[str, Any]) -> DemonstrationLine:
    values = with_response(values)
    _check_keys(values, required=("prompt", "response"), optional=("source", "user"))
    return DemonstrationLine(
        prompt_in(values),
        _response(values["response"]),
        optional_text(values, "source"),
        optional_text(values, "user"),
    )


def parse_judgment(values: Mapping[str, Any]) -> JudgmentLine:
    values = with_prompt(values)
    _check_keys(
        values,
        required=("comparison", "prompt", "responses", "annotator", "choice"),
        optional=("reason", "started_at", "submitted_at"),
    )
    responses = _responses(values["responses"])
    judgment = JudgmentLine(
        comparison=text_of(values, "comparison"),
        prompt=prompt_in(values),
        responses=responses,
        annotator=text_of(values, "annotator"),
        choice=_choice(values["choice"], len(responses)),
        reason=optional_text(values, "reason"),
        started_at=_time(values, "started_at"),
        submitted_at=_time(values, "submitted_at"),
    )
    if judgment.seconds is not None and judgment.seconds < 0:
        raise BadLineError("`submitted_at` is before `started_at`")
    return judgment


def _check_keys(values: Mapping[str, Any], required: Collection[str], optional: Collection[str]) -> None:
    missing = [key for key in required if key not in values]
    if missing:
        raise BadLineError(f"`{missing[0]}` is missing")
    unknown = sorted(set(values) - set(required) - set(optional))
    if unknown:
        raise BadLineError(f"`{unknown[0][:40]}` is not a key here; known: {', '.join([*required, *optional])}")


def _response(value: Any) -> str:
    text = response_in(value, "`response`")
    if not text.strip():
        raise BadLineError("`response` is empty")
    return text


def _responses(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise BadLineError("`responses` is not a list of at least two texts")
    texts = [response_in(text, f"`responses[{index}]`") for index, text in enumerate(value)]
    stripped = [text.strip() for text in texts]
    if "" in stripped:
        raise BadLineError(f"`responses[{stripped.index('')}]` is empty")
    if len(set(stripped)) < len(stripped):
        raise BadLineError("the same response is there twice, so there is nothing to choose")
    return tuple(texts)


def _choice(value: Any, k: int) -> int | str | None:
    if value is None or value == "tie":
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadLineError('`choice` is neither a number, "tie" nor null')
    if not 0 <= value < k:
        raise BadLineError(f"`choice` names response {str(value)[:20]}, but there are only 0 to {k - 1}")
    return value


def _time(values: Mapping[str, Any], key: str) -> datetime | None:
    """A time in UTC; a time without a zone is taken as UTC."""
    value = values.get(key)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(json_text(value, f"`{key}`"))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadLineError):
            raise
        raise BadLineError(f"`{key}` is not a time such as 2016-01-31T16:53:19Z") from None
