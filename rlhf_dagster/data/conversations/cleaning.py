"""Prompts and responses without personal data, as the settings want it."""

from collections.abc import Iterator

from rlhf_dagster.config.data import FeedbackSettings
from rlhf_dagster.data.conversations.personal_data import finder_of, masked
from rlhf_dagster.records.chats import Chat, Message, Prompt


class Cleaner:
    """Raises UserError where what finds personal data is not installed."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self._find, self._masks = finder_of(settings), settings.personal_data == "mask"

    def text(self, text: str) -> str | None:
        """The text, masked where something was found; None where it is to be left out."""
        found = self._find(text)
        return masked(text, found) if self._masks or not found else None

    def prompt(self, prompt: Prompt) -> Prompt | None:
        """The same of all messages of a prompt."""
        if not isinstance(prompt, Chat):
            return self.text(prompt)
        cleaned = [self.text(one.content) for one in prompt.messages]
        pairs = zip(prompt.messages, cleaned, strict=True)
        messages = tuple(Message(one.role, text) for one, text in pairs if text is not None)
        return Chat(messages) if len(messages) == len(cleaned) else None

    def kinds(self, prompt: Prompt) -> set[str]:
        """What kinds of personal data a prompt holds."""
        return {one.kind for text in _texts(prompt) for one in self._find(text)}


def _texts(prompt: Prompt) -> Iterator[str]:
    if isinstance(prompt, Chat):
        yield from (message.content for message in prompt.messages)
    else:
        yield prompt
