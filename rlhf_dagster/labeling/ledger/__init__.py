"""The ledger: every comparison sent and every version of every annotation, in SQLite or Postgres."""
