"""Labelling rounds as partitions."""

import dagster as dg

from rlhf_dagster.records.round_keys import IMPORT_ROUND, ROUND_KEY, round_key

rounds = dg.DynamicPartitionsDefinition(name="rounds")
"""Keys sort in the order of rounds. They are event driven, so dynamic and not tied to a calendar."""


def open_rounds(instance: dg.DagsterInstance) -> list[str]:
    return sorted(instance.get_dynamic_partitions(str(rounds.name)))


def open_next_round(instance: dg.DagsterInstance) -> str:
    """Add the partition after the newest round and return its key."""
    numbers = [int(key.rsplit("-", 1)[1]) for key in open_rounds(instance) if ROUND_KEY.fullmatch(key)]
    key = round_key(max(numbers, default=0) + 1)
    instance.add_dynamic_partitions(str(rounds.name), [key])
    return key


def open_import_round(instance: dg.DagsterInstance) -> str:
    instance.add_dynamic_partitions(str(rounds.name), [IMPORT_ROUND])
    return IMPORT_ROUND
