"""What keeps annotations from being changed or removed, even by hand, in either database."""

from rlhf_dagster.labeling.ledger.address import LedgerAddress

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


def trigger_statements(address: LedgerAddress) -> list[str]:
    """Statements that make the triggers unless they are there."""
    if address.is_sqlite:
        return list(_SQLITE)
    schema = f'"{address.schema}".' if address.schema else ""
    return [statement.format(schema=schema) for statement in _POSTGRES]
