"""Labelling rounds as partitions."""

import dagster as dg

from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import known_rounds
from rlhf_dagster.records.round_keys import IMPORT_ROUND, round_key, round_number

rounds = dg.DynamicPartitionsDefinition(name="rounds")
"""Keys sort in the order of rounds. Partitions are dynamic because events open rounds, not a calendar."""


def open_rounds(instance: dg.DagsterInstance) -> list[str]:
    return sorted(instance.get_dynamic_partitions(str(rounds.name)))


def next_round(instance: dg.DagsterInstance, loop: LoopFolder) -> str:
    """The key after those of all rounds that there are or ever were: no number is used twice."""
    keys = [*open_rounds(instance), *known_rounds(loop)]
    number = max((round_number(key) or 0 for key in keys), default=0) + 1
    while any(loop.ledger.size(round_key(number), "train")):
        number += 1
    return round_key(number)


def open_next_round(instance: dg.DagsterInstance, loop: LoopFolder) -> str:
    """Add the partition after the newest round and return its key."""
    key = next_round(instance, loop)
    instance.add_dynamic_partitions(str(rounds.name), [key])
    return key


def close_round(instance: dg.DagsterInstance, key: str) -> None:
    """Remove a round's partition; what was made of it stays on disk."""
    if instance.has_dynamic_partition(str(rounds.name), key):
        instance.delete_dynamic_partition(str(rounds.name), key)


def reopen_round(instance: dg.DagsterInstance, key: str) -> None:
    """Add the partition of a round that there was before."""
    instance.add_dynamic_partitions(str(rounds.name), [key])


def open_import_round(instance: dg.DagsterInstance) -> str:
    instance.add_dynamic_partitions(str(rounds.name), [IMPORT_ROUND])
    return IMPORT_ROUND
