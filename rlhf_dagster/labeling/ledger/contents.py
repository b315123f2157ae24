"""What the ledger's rows hold: annotations, and comparisons as JSON."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.labeling.ledger.rows import LedgerRow
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.records.chats import messages_of, prompt_of_row
from rlhf_dagster.records.json_text import json_encoding
from rlhf_dagster.records.schemas import COMPARISONS
from rlhf_dagster.records.tables import frame_of, table_of

_LATER_COLUMNS = {
    "role": "label",
    "gold_ranks": None,
    "repeat_of": "",
    "token_ids": None,
    "tokenizers": None,
    "name": "",
}
"""Values of columns that comparisons stored by older versions do not have."""


def annotation_of(row: LedgerRow) -> Annotation:
    created_at = datetime.fromisoformat(row["created_at"])
    is_first = row["updated_at"] == row["created_at"]
    return Annotation(
        annotation_id=row["annotation_id"],
        comparison_id=row["comparison_id"],
        annotator=row["annotator"],
        version=row["version"],
        status=row["status"],
        result=json.loads(row["result"]),
        seconds=row["seconds"],
        created_at=created_at,
        updated_at=created_at if is_first else datetime.fromisoformat(row["updated_at"]),
        position=row["position"],
    )


def comparison_of(row: LedgerRow) -> dict[str, Any]:
    """A row of COMPARISONS without project and task id."""
    found: dict[str, Any] = _LATER_COLUMNS | json.loads(row["content"])
    return found


def numbered_comparison(row: LedgerRow) -> dict[str, Any]:
    """A row of COMPARISONS."""
    return comparison_of(row) | {"project": row["project"], "task_id": str(row["task_id"])}


def comparisons_of(rows: Iterable[LedgerRow]) -> pd.DataFrame:
    """The table of COMPARISONS."""
    return frame_of(table_of(map(numbered_comparison, rows), COMPARISONS))


def sendable(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A row of COMPARISONS as a writer takes it: id, round, purpose, content."""
    return row["comparison_id"], row["round"], row["purpose"], comparison_json(row)


def comparison_json(row: Mapping[str, Any]) -> str:
    """A comparison as JSON; lists that came out of Parquet are arrays.

    Without messages and name it is as it always was.
    """
    later = {"messages": messages_of(prompt_of_row(row)), "name": row.get("name")}
    content = dict(row)
    for column, value in later.items():
        content.pop(column, None)
        if _is_there(value):
            content[column] = value
    return _as_json(content)


def _is_there(value: Any) -> bool:
    """Whether it is a text or a list, and not empty: pandas has NaN for a text that is null."""
    return isinstance(value, str | list) and bool(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_as_json = json_encoding(default=_plain)
