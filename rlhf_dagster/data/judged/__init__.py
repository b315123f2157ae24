"""Imported judgments on their way to tables and to the ledger."""
