"""Short digests of the ledger's rows, and sums of them that do not depend on the rows' order."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.tables import ANNOTATIONS_TABLE, COMPARISONS_TABLE, LEDGER_TABLE, PROJECTS_TABLE
from rlhf_dagster.records.json_text import json_encoding

MODULUS = 2**63
"""Digests and their sums are integers from 0 to 2^63 - 1, which both databases hold."""

_as_json = json_encoding(compact=True, ascii_only=True)


def digest(values: Sequence[Any]) -> int:
    """63 bits of BLAKE2b over the values as JSON, 1 or more: 0 stands for a row that has none."""
    text = _as_json(values)
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()) % (MODULUS - 1) + 1


def added(total: int, digests: Iterable[int]) -> int:
    """The sum of digests; taking one away is adding its negative."""
    return (total + sum(digests)) % MODULUS


def _names(table: sa.Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.columns if column.name != "digest")


_FIELDS = {table.name: _names(table) for table in (LEDGER_TABLE, PROJECTS_TABLE, COMPARISONS_TABLE, ANNOTATIONS_TABLE)}


def row_digest(table: sa.Table, row: Mapping[str, Any]) -> int:
    """The digest of all the other fields of a row."""
    return digest([row[name] for name in _FIELDS[table.name]])


def with_digest(table: sa.Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its digest."""
    return {**row, "digest": row_digest(table, row)}


def is_intact(values: Sequence[Any]) -> bool:
    """Whether a row, its digest last, is as it was written; no row of an undamaged ledger is not."""
    *fields, stated = values
    try:
        return bool(stated == digest(fields))
    except (TypeError, ValueError):  # a flipped bit can change a field's type too
        return False
