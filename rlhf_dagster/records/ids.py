"""Record ids: hashes of content, so that making the same record again makes the same id and nothing counts twice."""

import hashlib
from collections.abc import Sequence
from typing import Any

from rlhf_dagster.records.chats import Prompt, messages_of
from rlhf_dagster.records.json_text import json_encoding
from rlhf_dagster.records.machines import is_person

ID_LENGTH = 20
_as_json = json_encoding(sort_keys=True, compact=True)


def content_hash(*parts: Any) -> str:
    """The first 20 hex digits (80 bits) of SHA-256 over the parts' canonical JSON."""
    return hashlib.sha256(_as_json(parts).encode("utf-8")).hexdigest()[:ID_LENGTH]


def prompt_id(prompt: Prompt) -> str:
    """Of its text, or of its messages where it is a chat."""
    return content_hash("prompt", messages_of(prompt) or prompt)


def demonstration_id(prompt: Prompt, response: str) -> str:
    return content_hash("demonstration", messages_of(prompt) or prompt, response)


def completion_id(prompt_id: str, policy_id: str, decoding: dict[str, Any], seed: int, index: int) -> str:
    """``decoding`` holds the sampling settings; ``index`` counts the samples of one prompt."""
    return content_hash("completion", prompt_id, policy_id, decoding, seed, index)


def comparison_id(completion_ids: Sequence[str], kind: str, round_key: str, variant: str = "") -> str:
    """The same responses shown in any order are the same comparison.

    ``variant`` distinguishes a comparison that is asked once more on purpose, such as a gold question or a repeat.
    """
    return content_hash("comparison", sorted(completion_ids), kind, round_key, *([variant] if variant else []))


def label_id(comparison_id: str, annotator: str, annotation_id: str, version: int) -> str:
    """``annotator`` is a pseudonym, ``annotation_id`` the label store's own id."""
    return content_hash("label", comparison_id, annotator, annotation_id, version)


def pseudonym(name: str) -> str:
    """Stands for a person in a data frame, which belongs to no loop; a loop's pseudonyms have a key
    (:class:`~rlhf_dagster.records.pseudonyms.Pseudonyms`). The empty name and those of machines and sources stay.
    """
    return content_hash("person", name) if name and is_person(name) else name


def split_of(key: str, validation: float, test: float) -> str:
    """``train``, ``validation`` or ``test`` by a hash of ``key``: the same key always lands in the same split."""
    position = int(content_hash("split", key)[:8], 16) / 0xFFFFFFFF
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
