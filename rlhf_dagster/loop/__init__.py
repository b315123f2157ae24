"""One loop on disk and each step of it, as plain functions without Dagster."""
