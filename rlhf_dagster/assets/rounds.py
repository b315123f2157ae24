"""Labelling rounds as partitions."""

import dagster as dg

from rlhf_dagster.records.round_keys import IMPORT_ROUND, round_key, round_number

rounds = dg.DynamicPartitionsDefinition(name="rounds")
"""Keys sort in the order of rounds. Partitions are dynamic because events open rounds, not a calendar."""


def open_rounds(instance: dg.DagsterInstance) -> list[str]:
    return sorted(instance.get_dynamic_partitions(str(rounds.name)))


def open_next_round(instance: dg.DagsterInstance) -> str:
    """Add the partition after the newest round and return its key."""
    newest = max((round_number(key) or 0 for key in open_rounds(instance)), default=0)
    key = round_key(newest + 1)
    instance.add_dynamic_partitions(str(rounds.name), [key])
    return key


def open_import_round(instance: dg.DagsterInstance) -> str:
    instance.add_dynamic_partitions(str(rounds.name), [IMPORT_ROUND])
    return IMPORT_ROUND
