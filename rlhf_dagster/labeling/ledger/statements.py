"""What a database is told of the tables beside their columns.

Triggers keep annotations from being changed or removed, even by hand.
"""

from typing import Any

import sqlalchemy as sa

from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.tables import TALLIES

REFUSAL = "annotations are append-only"
_SQLITE = (
    f"CREATE TRIGGER IF NOT EXISTS annotations_are_never_changed BEFORE UPDATE ON annotations "
    f"BEGIN SELECT RAISE (ABORT, '{REFUSAL}'); END",
    f"CREATE TRIGGER IF NOT EXISTS annotations_are_never_removed BEFORE DELETE ON annotations "
    f"BEGIN SELECT RAISE (ABORT, '{REFUSAL}'); END",
)
_POSTGRES = (
    "CREATE OR REPLACE FUNCTION {schema}refuse_changes() RETURNS trigger LANGUAGE plpgsql AS "
    f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$",
    "CREATE OR REPLACE TRIGGER annotations_are_never_changed BEFORE UPDATE OR DELETE ON {schema}annotations "
    "FOR EACH ROW EXECUTE FUNCTION {schema}refuse_changes()",
    "CREATE OR REPLACE TRIGGER annotations_are_never_emptied BEFORE TRUNCATE ON {schema}annotations "
    "FOR EACH STATEMENT EXECUTE FUNCTION {schema}refuse_changes()",
)
_UNCOMPRESSED = "ALTER TABLE {schema}tallies ALTER COLUMN {column} SET STORAGE EXTERNAL"
"""Postgres takes half a second to compress the counts of a large round, and 0.04 to write them as they are."""


def table_statements(address: LedgerAddress) -> list[str]:
    """Statements that make this so, also where it is so already."""
    if address.is_sqlite:
        return list(_SQLITE)
    schema = f'"{address.schema}".' if address.schema else ""
    stored = [_UNCOMPRESSED.format(schema=schema, column=column.name) for column in TALLIES.c if _is_bytes(column)]
    return [*(statement.format(schema=schema) for statement in _POSTGRES), *stored]


def _is_bytes(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.LargeBinary)
