"""Prompts: a text, or a chat of several messages.

Tables hold a prompt as text, which people and everything that reads text see, and beside it, for a chat alone, its
messages. A text that looks like messages is a text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

ROLE_NAMES = {"system": "System", "user": "User", "assistant": "Assistant"}
"""How people read the roles that a message can have."""


@dataclass(frozen=True)
class Message:
    role: str
    """One of :data:`ROLE_NAMES`."""
    content: str


@dataclass(frozen=True)
class Chat:
    """A prompt of several turns. ``str(chat)`` is its text: one user's message as it is, others after their roles."""

    messages: tuple[Message, ...]

    @classmethod
    def of(cls, messages: Iterable[Mapping[str, str]]) -> "Chat":
        return cls(tuple(Message(message["role"], message["content"]) for message in messages))

    def as_dicts(self) -> list[dict[str, str]]:
        """As tables and chat templates have messages."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    def __str__(self) -> str:
        if [message.role for message in self.messages] == ["user"]:
            return self.messages[0].content
        return "\n\n".join(f"{ROLE_NAMES[message.role]}: {message.content}" for message in self.messages)


Prompt = str | Chat


def messages_of(prompt: Prompt) -> list[dict[str, str]] | None:
    """The column `messages` of a prompt: None for a text."""
    return prompt.as_dicts() if isinstance(prompt, Chat) else None


def prompt_of_row(row: Mapping[str, Any], column: str = "prompt") -> Prompt:
    """The prompt of a table's row, whose text is in ``column``."""
    messages = row.get("messages")
    if messages is None or isinstance(messages, float):  # pandas has NaN where a column is null
        return str(row[column])
    return Chat.of(messages)


def prompts_of(frame: "pd.DataFrame", column: str = "prompt") -> list[Prompt]:
    """The prompt of each row of a table."""
    if "messages" not in frame.columns:
        return frame[column].tolist()
    pairs = zip(frame[column], frame["messages"], strict=True)
    return [prompt_of_row({column: text, "messages": messages}, column) for text, messages in pairs]
