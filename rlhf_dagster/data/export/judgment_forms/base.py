"""What a form of judgments is on the way out, and what all of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.export.row_files import CHAT_MESSAGES, Columns
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Prompt, messages_of
from rlhf_dagster.records.schemas import FLOAT, STRING
from rlhf_dagster.records.tables import Row

NOT_DECIDED = "the annotator could not decide"
TIED = "a tie, which names no better response"
MORE_THAN_TWO = "more than two responses"
AS_NEW = "what is asked to measure annotators (repeats, gold questions), which comes in as any other comparison"
"""What no form can hold."""
LOOP_COLUMNS: Columns = {"round": STRING, "role": STRING, "source": STRING, "split": STRING, "weight": FLOAT}
"""Columns with what a loop says of a judgment; those who read a form know them or pass over them."""


@dataclass(frozen=True)
class Facts:
    """What is known of all judgments before the first is written."""

    chats: bool = False
    """Whether some prompts are chats."""
    texts: bool = True
    """Whether some prompts are texts."""
    axes: tuple[str, ...] = ()
    """The axes that are rated."""

    @property
    def prompt(self) -> pa.DataType:
        """The type of a column that has prompts as they are; raises UserError where no type can hold them all."""
        if self.chats and self.texts:
            raise UserError("Some prompts are chats and some are texts, which one column cannot hold; write .jsonl.")
        return CHAT_MESSAGES if self.chats else STRING


class NotHeldError(ValueError):
    """A judgment that a form cannot hold; the message is the reason that is counted."""


@dataclass(frozen=True)
class OutgoingForm:
    """A form of judgments."""

    name: str
    """As `--form` takes it."""
    shape: str
    """What a row is, for people."""
    rows: Callable[[OutgoingJudgment], list[Row]]
    """The rows of a judgment; raises NotHeldError."""
    columns: Callable[[Facts], Columns] | None
    """The columns of a table of them, with their types; None for a form that is JSON alone."""
    cannot_hold: tuple[str, ...]
    """What is lost on the way out and in again."""


def beside(judgment: OutgoingJudgment) -> Row:
    """The values of :data:`LOOP_COLUMNS`."""
    role = judgment.role if judgment.role != "label" else None
    said = {"round": judgment.round, "role": role, "source": judgment.source or None}
    return said | {"split": judgment.split or None, "weight": judgment.weight}


def text_or_messages(prompt: Prompt) -> Any:
    return messages_of(prompt) or prompt


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A chat's messages; of a text, one user's message."""
    return messages_of(prompt) or [{"role": "user", "content": str(prompt)}]


def said(text: str) -> list[dict[str, str]]:
    """A response as the assistant's message."""
    return [{"role": "assistant", "content": text}]
