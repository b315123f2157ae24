"""Messages in what is imported: a prompt that is a chat, and a response that is an assistant's message."""

import re
from collections.abc import Mapping
from typing import Any

from rlhf_dagster.common.bounds.limits import CHAT_LENGTH
from rlhf_dagster.data.line_values import json_text, require_shorter, text_of
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.records.chats import ROLE_NAMES, Chat, Message, Prompt

_KEYS = ("role", "content")
_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "prompter": "user"}
"""Our roles for those of other forms."""


def prompt_in(values: Mapping[str, Any], key: str = "prompt") -> Prompt:
    """The prompt under ``key``, a text or a list of messages whose last is a user's; raises BadLineError for others."""
    value = values[key]
    if isinstance(value, str):
        return text_of(values, key)
    if not isinstance(value, list):
        raise BadLineError(f"`{key}` is not a text or a list of messages")
    chat = Chat(_messages(value, f"`{key}`"))
    if chat.messages[-1].role != "user":
        raise BadLineError(f"the last message of `{key}` is not a user's, so there is nothing to answer")
    return chat


def response_in(value: Any, what: str) -> str:
    """A response, as a text or as a list of one assistant's message; raises BadLineError for others."""
    if not isinstance(value, list):
        return json_text(value, what)
    # A policy may have nothing to say, which is data; a turn of a prompt may not.
    messages = _messages(value, what, empty=True)
    if [message.role for message in messages] != ["assistant"]:
        raise BadLineError(f"{what} is a list of messages other than a single one of the assistant's")
    return messages[0].content


def with_prompt(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``values`` with the key `prompt` in place of `messages`, which says the same of a chat."""
    if "messages" not in values:
        return values
    if "prompt" in values:
        raise BadLineError("both `prompt` and `messages` are given; leave one out")
    if not isinstance(values["messages"], list):
        raise BadLineError("`messages` is not a list of messages")
    return {"prompt" if key == "messages" else key: value for key, value in values.items()}


def with_response(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``values`` with `prompt` and `response`, also where `messages` end with the response, the assistant's turn."""
    messages = values.get("messages")
    if "response" in values or not isinstance(messages, list) or len(messages) < 2:
        return with_prompt(values)
    return with_prompt(dict(values) | {"messages": messages[:-1], "response": messages[-1:]})


def _messages(given: list[Any], what: str, empty: bool = False) -> tuple[Message, ...]:
    if not given:
        raise BadLineError(f"{what} is a list without any message")
    if len(given) > CHAT_LENGTH.most:
        raise BadLineError(f"{what} has more than {CHAT_LENGTH.most:,} messages; {CHAT_LENGTH.said()}")
    read = tuple(_message(one, f"message {number} of {what}", empty) for number, one in enumerate(given, 1))
    require_shorter(sum(len(one.content) for one in read), what)
    return read


def _message(given: Any, what: str, empty: bool) -> Message:
    if not isinstance(given, dict) or not all(key in given for key in _KEYS):
        raise BadLineError(f"{what} is not an object with `role` and `content`")
    surplus = sorted(str(key) for key, value in given.items() if key not in _KEYS and value is not None)
    if surplus:
        raise BadLineError(f"{what} has `{surplus[0][:40]}`, which would be ignored; leave it out")
    if given["role"] not in tuple(ROLE_NAMES):
        raise BadLineError(f"{what} has the role {str(given['role'])[:40]!r}; known: {', '.join(ROLE_NAMES)}")
    content = _content(given["content"], what)
    if not empty and not content.strip():
        raise BadLineError(f"{what} is empty")
    return Message(given["role"], content)


def _content(given: Any, what: str) -> str:
    """A text, or texts in parts one after the other, as templates write them; other parts are refused."""
    if not isinstance(given, list):
        return json_text(given, f"the content of {what}")
    return "".join(_part(part, what) for part in given)


def _part(part: Any, what: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or "text" not in part:
        kind = part.get("type") if isinstance(part, dict) else None
        raise BadLineError(f"{what} has a part of type {str(kind)[:40]!r}; only text is known here")
    return json_text(part["text"], f"a part of {what}")


def shared_messages(value: Any) -> Any:
    """``value`` with its messages as `role` and `content`, where they are written `from` and `value` (ShareGPT)."""
    if not isinstance(value, list) or not all(
        isinstance(one, dict) and "from" in one and "value" in one for one in value
    ):
        return value
    return [{"role": _SPEAKERS.get(one["from"], one["from"]), "content": one["value"]} for one in value]


def turns_of(text: str) -> list[dict[str, str]]:
    """The messages of a chat as text whose turns begin with `Human:` and `Assistant:` (the form of HH-RLHF)."""
    _, *parts = re.split(r"(?:^|\n\n)(Human|Assistant): ?", text)
    return [
        {"role": "user" if who == "Human" else "assistant", "content": said.strip()}
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def prompt_and_answer(messages: Any) -> tuple[list[Any], str]:
    """The messages before the last, and the text of the last, which is the assistant's; raises BadLineError."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant" or not isinstance(last.get("content"), str):
        raise BadLineError("does not end with a message of the assistant")
    if len(messages) < 2:
        raise BadLineError("has nothing before the assistant's message")
    return messages[:-1], last["content"]
