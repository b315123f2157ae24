"""One row of each data table: its ids, and what it says."""

from typing import Any

from rlhf_dagster.records.chats import Prompt, messages_of
from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id


def prompt_row(prompt: Prompt, source: str, user: str, split: str) -> dict[str, Any]:
    """A row of PROMPTS; ``user`` is a pseudonym, or empty."""
    return {
        "prompt_id": prompt_id(prompt),
        "text": str(prompt),
        "messages": messages_of(prompt),
        "source": source,
        "user": user,
        "split": split,
    }


def demonstration_row(prompt: Prompt, response: str, source: str, split: str) -> dict[str, Any]:
    """A row of DEMONSTRATIONS."""
    return {
        "demonstration_id": demonstration_id(prompt, response),
        "prompt_id": prompt_id(prompt),
        "prompt": str(prompt),
        "messages": messages_of(prompt),
        "response": response,
        "source": source,
        "split": split,
    }


def document_row(text: str, source: str, split: str) -> dict[str, Any]:
    """A row of PRETRAINING_TEXT."""
    return {"text_id": content_hash("text", text), "text": text, "source": source, "split": split}
