"""Imported records as Parquet tables under ``imports/``, each record once."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.data.line_records import DemonstrationLine, GoldLine, PromptLine
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id, pseudonym
from rlhf_dagster.records.schemas import IMPORTED_DEMONSTRATIONS, IMPORTED_GOLD, IMPORTED_PROMPTS


def add_prompts(lines: Iterable[PromptLine], folder: Path, source: str) -> tuple[int, int]:
    """Append prompts to ``prompts.parquet``; returns how many were new and how many were there already.

    ``source`` stands in where a line names none.
    """
    rows = [
        {
            "prompt_id": prompt_id(line.prompt),
            "text": line.prompt,
            "source": line.source or source,
            "user": pseudonym(line.user),
        }
        for line in lines
    ]
    return append_new(folder / "prompts.parquet", rows, IMPORTED_PROMPTS)


def add_demonstrations(lines: Iterable[DemonstrationLine], folder: Path, source: str) -> tuple[int, int]:
    """Append demonstrations to ``demonstrations.parquet``; returns how many were new and how many were not."""
    rows = [
        {
            "demonstration_id": demonstration_id(line.prompt, line.response),
            "prompt_id": prompt_id(line.prompt),
            "prompt": line.prompt,
            "response": line.response,
            "source": line.source or source,
            "user": pseudonym(line.user),
        }
        for line in lines
    ]
    return append_new(folder / "demonstrations.parquet", rows, IMPORTED_DEMONSTRATIONS)


def add_gold(lines: Iterable[GoldLine], folder: Path) -> tuple[int, int]:
    """Append gold questions to ``gold.parquet``; returns how many were new and how many were not."""
    rows = [
        {
            "gold_id": content_hash("gold question", line.prompt, sorted(line.responses)),
            "prompt": line.prompt,
            "responses": list(line.responses),
            "best": line.best,
        }
        for line in lines
    ]
    return append_new(folder / "gold.parquet", rows, IMPORTED_GOLD)


def append_new(file: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> tuple[int, int]:
    """Append the rows whose id, the schema's first column, is not in ``file`` yet; returns counts of new and old.

    A row that names its `user` takes the place of one that does not, and counts as old: the split needs the
    user, and imported judgments bring their prompts without one.
    """
    identity = schema.names[0]
    kept: dict[str, Mapping[str, Any]] = {row[identity]: row for row in read_imported(file, schema).to_pylist()}
    present, total, changed = len(kept), 0, not file.exists()
    for row in rows:
        total += 1
        before = kept.get(row[identity])
        if before is None or (row.get("user") and not before.get("user")):
            kept[row[identity]] = row
            changed = True
    if changed:
        write_table(file, pa.Table.from_pylist(list(kept.values()), schema=schema))
    new = len(kept) - present
    return new, total - new


def read_imported(file: Path, schema: pa.Schema) -> pa.Table:
    """The table in ``file``; an empty one if there is none yet."""
    if not file.exists():
        return schema.empty_table()
    try:
        return pq.read_table(file).cast(schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{file}: not a table of imported records ({first_line(error)}); move it away and import again."
        ) from None


def write_table(file: Path, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    write_atomically(file, buffer.getvalue())
