"""The forms in which prompts, demonstrations and completions go out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.data.export.judgment_forms.base import Facts
from rlhf_dagster.data.export.row_files import CHAT_MESSAGES, Columns
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import messages_of, prompt_of_row
from rlhf_dagster.records.schemas import INT, STRING
from rlhf_dagster.records.tables import Row


@dataclass(frozen=True)
class TextForm:
    """A form of records that are a prompt, perhaps with a text that answers it."""

    name: str
    shape: str
    row: Callable[[Row], dict[str, Any]]
    """The row of one of a table's rows."""
    columns: Callable[[Facts], Columns]
    """The columns of a table of them, with their types."""


def text_form(kind: str, name: str) -> TextForm:
    """The form of this name, `own` without one, of prompts, demonstrations or completions."""
    forms = TEXT_FORMS[kind]
    if (name or "own") not in forms:
        raise UserError(f"--form {name}: {kind} go out as {', '.join(forms)}.")
    return forms[name or "own"]


def _prompt(row: Row, column: str = "prompt") -> Any:
    prompt = prompt_of_row(row, column)
    return messages_of(prompt) or prompt


def _turns(row: Row) -> list[dict[str, str]]:
    prompt = prompt_of_row(row)
    asked = messages_of(prompt) or [{"role": "user", "content": str(prompt)}]
    return [*asked, {"role": "assistant", "content": row["response"]}]


def _asked(facts: Facts, **others: Any) -> Columns:
    return {"prompt": facts.prompt, **others, "split": STRING}


def _beside(row: Row) -> dict[str, Any]:
    return {"source": row["source"] or None, "split": row["split"]}


def _completion(row: Row) -> dict[str, Any]:
    named = {name: row[name] for name in ("completion_id", "policy_id", "index", "seed", "decoding")}
    return {"prompt": _prompt(row), "response": row["text"], **named}


TEXT_FORMS = {
    "prompts": {
        "own": TextForm(
            "own",
            "`prompt`, `source`, `user`",
            lambda row: {"prompt": _prompt(row, "text"), "user": row["user"] or None, **_beside(row)},
            lambda facts: _asked(facts, source=STRING, user=STRING),
        )
    },
    "demonstrations": {
        "own": TextForm(
            "own",
            "`prompt`, `response`, `source`",
            lambda row: {"prompt": _prompt(row), "response": row["response"], **_beside(row)},
            lambda facts: _asked(facts, response=STRING, source=STRING),
        ),
        "messages": TextForm(
            "messages",
            "`messages`, of which the last is the response",
            lambda row: {"messages": _turns(row), **_beside(row)},
            lambda _: {"messages": CHAT_MESSAGES, "source": STRING, "split": STRING},
        ),
        "instruction": TextForm(
            "instruction",
            "`instruction`, `output`; a chat as people read it",
            lambda row: {"instruction": row["prompt"], "output": row["response"], **_beside(row)},
            lambda _: dict.fromkeys(("instruction", "output", "source", "split"), STRING),
        ),
    },
    "completions": {
        "own": TextForm(
            "own",
            "`prompt`, `response`, and which policy sampled it how",
            _completion,
            lambda facts: {
                **{"prompt": facts.prompt, "response": STRING, "completion_id": STRING},
                **{"policy_id": STRING, "index": INT, "seed": INT, "decoding": STRING},
            },
        )
    },
}
"""By what is exported and by name."""
