"""Imported records as Parquet tables under ``imports/``, each record once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from rlhf_dagster.common.batches import batches
from rlhf_dagster.data.line_records import DemonstrationLine, FeedbackLine, GoldLine, PromptLine
from rlhf_dagster.data.parts.known import SeenTexts
from rlhf_dagster.data.parts.table import ImportedTable, without_repeats
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.records.chats import messages_of
from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id
from rlhf_dagster.records.pseudonyms import Pseudonyms
from rlhf_dagster.records.schemas import (
    IMPORTED_DEMONSTRATIONS,
    IMPORTED_FEEDBACK,
    IMPORTED_GOLD,
    IMPORTED_PROMPTS,
)
from rlhf_dagster.storage.base import Store

_BATCH = 20_000
"""Records that are made into a table at a time."""


def add_prompts(lines: Iterable[PromptLine], store: Store, source: str) -> tuple[int, int]:
    """Append prompts to those imported; returns how many were new and how many were there already.

    ``source`` stands in where a line names none.
    """
    return append_new(store, "prompts", prompt_rows(lines, source, people_of(store)), IMPORTED_PROMPTS)


def prompt_rows(lines: Iterable[PromptLine], source: str, people: Pseudonyms) -> Iterator[dict[str, Any]]:
    """Rows of IMPORTED_PROMPTS."""
    for line in lines:
        yield {
            "prompt_id": prompt_id(line.prompt),
            "text": str(line.prompt),
            "messages": messages_of(line.prompt),
            "source": line.source or source,
            "user": people.of(line.user),
        }


def add_demonstrations(lines: Iterable[DemonstrationLine], store: Store, source: str) -> tuple[int, int]:
    """Append demonstrations to those imported; returns how many were new and how many were not."""
    people = people_of(store)
    rows = (
        {
            "demonstration_id": demonstration_id(line.prompt, line.response),
            "prompt_id": prompt_id(line.prompt),
            "prompt": str(line.prompt),
            "messages": messages_of(line.prompt),
            "response": line.response,
            "source": line.source or source,
            "user": people.of(line.user),
        }
        for line in lines
    )
    return append_new(store, "demonstrations", rows, IMPORTED_DEMONSTRATIONS)


def add_gold(lines: Iterable[GoldLine], store: Store) -> tuple[int, int]:
    """Append gold questions to those imported; returns how many were new and how many were not."""
    rows = (
        {
            "gold_id": content_hash("gold question", messages_of(line.prompt) or line.prompt, sorted(line.responses)),
            "prompt": str(line.prompt),
            "messages": messages_of(line.prompt),
            "responses": list(line.responses),
            "best": line.best,
        }
        for line in lines
    )
    return append_new(store, "gold", rows, IMPORTED_GOLD)


def add_feedback(lines: Iterable[FeedbackLine], store: Store, source: str) -> tuple[int, int]:
    """Append responses that people liked or did not to those imported; how many were new and how many were not."""
    people = people_of(store)
    rows = (
        {
            "feedback_id": content_hash(
                "feedback", messages_of(line.prompt) or line.prompt, line.response, line.liked, people.of(line.user)
            ),
            "prompt_id": prompt_id(line.prompt),
            "prompt": str(line.prompt),
            "messages": messages_of(line.prompt),
            "response": line.response,
            "liked": line.liked,
            "weight": line.weight,
            "user": people.of(line.user),
            "source": line.source or source,
        }
        for line in lines
    )
    return append_new(store, "feedback", rows, IMPORTED_FEEDBACK)


def append_new(store: Store, name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> tuple[int, int]:
    """Append the rows whose id, the schema's first column, is not in the table ``name`` yet; counts of new and old.

    A row that names its `user` takes the place of one that does not, and counts as old: the split needs the
    user, and imported judgments bring their prompts without one.
    """
    return Appending(ImportedTable(store, name, schema)).append(rows)


class Appending:
    """Adds rows to a table of imported records, each once; what the table has is looked up when this is made."""

    def __init__(self, table: ImportedTable) -> None:
        self._table, self._id = table, table.schema.names[0]
        self._all, self._named = SeenTexts(), SeenTexts()
        for part in table.columns([self._id, "user"]):
            ids = part[self._id].to_pylist()
            self._all.add(ids)
            users = part["user"].to_pylist() if "user" in part.column_names else []
            self._named.add(one for one, user in zip(ids, users, strict=False) if user)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
        """As :func:`append_new`, in batches."""
        counts = [self._append(batch) for batch in batches(rows, _BATCH)]
        return sum(new for new, _ in counts), sum(old for _, old in counts)

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
        ids = [row[self._id] for row in rows]
        there, named = self._all.known(ids), self._named.known(ids)
        new = len(set(ids)) - len({one for one, old in zip(ids, there, strict=True) if old})
        says = [not old or (row.get("user") and not user) for row, old, user in zip(rows, there, named, strict=True)]
        added = [row for row, wanted in zip(rows, says, strict=True) if wanted]
        if added:
            self._table.append(without_repeats(pa.Table.from_pylist(added, schema=self._table.schema)))
        self._all.add(ids)
        self._named.add(row[self._id] for row in added if row.get("user"))
        return new, len(rows) - new


def imported(store: Store, name: str, schema: pa.Schema) -> pa.Table | None:
    """The table of imported records ``name``; None if there is none yet."""
    return ImportedTable(store, name, schema).read()


def is_imported(store: Store, name: str) -> bool:
    """Whether records of this kind were imported."""
    return store.exists(imported_key(name))


def imported_key(name: str) -> str:
    """Where a store has the imported records ``name``, or the first of them."""
    return f"imports/{name}.parquet"
