"""Commands that keep a loop whole: checks, backups, the ledger, what is deleted."""
