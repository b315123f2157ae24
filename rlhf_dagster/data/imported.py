"""Imported records as Parquet tables under ``imports/``, each record once."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from rlhf_dagster.data.line_records import DemonstrationLine, FeedbackLine, GoldLine, PromptLine
from rlhf_dagster.errors import Damaged, UserError, first_line
from rlhf_dagster.records.chats import messages_of
from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id, pseudonym
from rlhf_dagster.records.parquet import read_parquet, to_parquet
from rlhf_dagster.records.schemas import (
    IMPORTED_DEMONSTRATIONS,
    IMPORTED_FEEDBACK,
    IMPORTED_GOLD,
    IMPORTED_PROMPTS,
    cast_to,
)
from rlhf_dagster.storage.base import Store, update


def add_prompts(lines: Iterable[PromptLine], store: Store, source: str) -> tuple[int, int]:
    """Append prompts to those imported; returns how many were new and how many were there already.

    ``source`` stands in where a line names none.
    """
    rows = [
        {
            "prompt_id": prompt_id(line.prompt),
            "text": str(line.prompt),
            "messages": messages_of(line.prompt),
            "source": line.source or source,
            "user": pseudonym(line.user),
        }
        for line in lines
    ]
    return append_new(store, "prompts", rows, IMPORTED_PROMPTS)


def add_demonstrations(lines: Iterable[DemonstrationLine], store: Store, source: str) -> tuple[int, int]:
    """Append demonstrations to those imported; returns how many were new and how many were not."""
    rows = [
        {
            "demonstration_id": demonstration_id(line.prompt, line.response),
            "prompt_id": prompt_id(line.prompt),
            "prompt": str(line.prompt),
            "messages": messages_of(line.prompt),
            "response": line.response,
            "source": line.source or source,
            "user": pseudonym(line.user),
        }
        for line in lines
    ]
    return append_new(store, "demonstrations", rows, IMPORTED_DEMONSTRATIONS)


def add_gold(lines: Iterable[GoldLine], store: Store) -> tuple[int, int]:
    """Append gold questions to those imported; returns how many were new and how many were not."""
    rows = [
        {
            "gold_id": content_hash("gold question", messages_of(line.prompt) or line.prompt, sorted(line.responses)),
            "prompt": str(line.prompt),
            "messages": messages_of(line.prompt),
            "responses": list(line.responses),
            "best": line.best,
        }
        for line in lines
    ]
    return append_new(store, "gold", rows, IMPORTED_GOLD)


def add_feedback(lines: Iterable[FeedbackLine], store: Store, source: str) -> tuple[int, int]:
    """Append responses that people liked or did not to those imported; how many were new and how many were not."""
    rows = [
        {
            "feedback_id": content_hash(
                "feedback", messages_of(line.prompt) or line.prompt, line.response, line.liked, pseudonym(line.user)
            ),
            "prompt_id": prompt_id(line.prompt),
            "prompt": str(line.prompt),
            "messages": messages_of(line.prompt),
            "response": line.response,
            "liked": line.liked,
            "weight": line.weight,
            "user": pseudonym(line.user),
            "source": line.source or source,
        }
        for line in lines
    ]
    return append_new(store, "feedback", rows, IMPORTED_FEEDBACK)


def append_new(store: Store, name: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> tuple[int, int]:
    """Append the rows whose id, the schema's first column, is not in the table ``name`` yet; counts of new and old.

    A row that names its `user` takes the place of one that does not, and counts as old: the split needs the
    user, and imported judgments bring their prompts without one.
    """
    rows, counts = list(rows), {}

    def merge(data: bytes | None) -> bytes:
        before = _table(data, imported_key(name), schema).to_pylist()
        after = _merged(before, rows, schema.names[0])
        counts["new"] = len(after) - len(before)
        return data if data and after == before else to_parquet(pa.Table.from_pylist(after, schema=schema))

    update(store, imported_key(name), merge)
    return counts["new"], len(rows) - counts["new"]


def _merged(
    before: Iterable[Mapping[str, Any]], rows: Iterable[Mapping[str, Any]], identity: str
) -> list[Mapping[str, Any]]:
    kept = {row[identity]: row for row in before}
    for row in rows:
        known = kept.get(row[identity])
        if known is None or (row.get("user") and not known.get("user")):
            kept[row[identity]] = row
    return list(kept.values())


def imported(store: Store, name: str, schema: pa.Schema) -> pa.Table | None:
    """The table of imported records ``name``; None if there is none yet."""
    found = store.get(imported_key(name))
    return None if found is None else _table(found.data, imported_key(name), schema)


def is_imported(store: Store, name: str) -> bool:
    """Whether records of this kind were imported."""
    return store.exists(imported_key(name))


def write_table(store: Store, name: str, rows: pa.Table) -> None:
    store.put(imported_key(name), to_parquet(rows))


def imported_key(name: str) -> str:
    """Where a store has the imported records ``name``."""
    return f"imports/{name}.parquet"


def _table(data: bytes | None, key: str, schema: pa.Schema) -> pa.Table:
    if data is None:
        return schema.empty_table()
    try:
        return cast_to(read_parquet(data, key), schema)
    except (pa.ArrowException, ValueError, Damaged) as error:
        raise UserError(
            f"{key}: not a table of imported records ({first_line(error)}); move it away and import again."
        ) from None
