"""One row of each data table: its ids, and what it says."""

from typing import Any

from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id


def prompt_row(text: str, source: str, user: str, split: str) -> dict[str, Any]:
    """A row of PROMPTS; ``user`` is a pseudonym, or empty."""
    return {"prompt_id": prompt_id(text), "text": text, "source": source, "user": user, "split": split}


def demonstration_row(prompt: str, response: str, source: str, split: str) -> dict[str, Any]:
    """A row of DEMONSTRATIONS."""
    return {
        "demonstration_id": demonstration_id(prompt, response),
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "response": response,
        "source": source,
        "split": split,
    }


def document_row(text: str, source: str, split: str) -> dict[str, Any]:
    """A row of PRETRAINING_TEXT."""
    return {"text_id": content_hash("text", text), "text": text, "source": source, "split": split}
