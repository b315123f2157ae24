"""Conversations that were logged more than once: turn by turn, or as the same beginning."""

from collections.abc import Iterator

from rlhf_dagster.data.conversations.logged import Logged, turns_in
from rlhf_dagster.data.parts.known import SeenTexts
from rlhf_dagster.records.chats import Chat

TURN_OF_LONGER, BEGINS_AS_ANOTHER = "earlier turns of a longer one", "the same beginning as another one"


class Duplicates:
    """Which lines are to be left out for others; the log is read twice, since a conversation's last turn comes last.

    A beginning belongs to the user who was the first to have it, also where a line of theirs is left out: otherwise it
    could go from one split to another when the log grows.
    """

    def __init__(self, common_prefix: int | None) -> None:
        self._length = common_prefix
        self._earlier_turns = SeenTexts()
        self._owners: dict[int, int] = {}
        self._taken: set[int] = set()

    def note(self, one: Logged) -> None:
        """Of every line that may be taken, in their order, before the first question."""
        self._earlier_turns.add(list(_requests_of(one))[:-1])
        self._owners.setdefault(self._beginning(one), hash(one.user))

    def reason(self, one: Logged) -> str:
        """Why a line is left out, in the same order; empty where it is not."""
        *_, whole = _requests_of(one)
        if whole in self._earlier_turns:
            return TURN_OF_LONGER
        beginning = self._beginning(one)
        if beginning in self._taken or self._owners.get(beginning) != hash(one.user):
            return BEGINS_AS_ANOTHER
        self._taken.add(beginning)
        return ""

    def _beginning(self, one: Logged) -> int:
        text = " ".join(f"{role}: {' '.join(content.split())}" for role, content in turns_in(one.prompt))
        return hash(text[: self._length])


def _requests_of(one: Logged) -> Iterator[str]:
    """A key of each request that a conversation has made so far: up to each turn of its user, the last one included."""
    key = hash(one.user)
    messages = one.prompt.messages if isinstance(one.prompt, Chat) else ()
    for message in messages:
        key = hash((key, message.role, message.content))
        if message.role == "user":
            yield str(key)
    if not messages:
        yield str(hash((key, one.prompt)))
