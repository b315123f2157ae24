"""Labelling rounds as partitions."""

import dagster as dg

from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import known_rounds
from rlhf_dagster.records.loop_names import ALONE, LoopNames
from rlhf_dagster.records.round_keys import IMPORT_ROUND, round_key, round_number


def rounds_of(names: LoopNames) -> dg.DynamicPartitionsDefinition:
    """Keys sort in the order of rounds. Partitions are dynamic because events open rounds, not a calendar."""
    return dg.DynamicPartitionsDefinition(name=names.rounds)


rounds = rounds_of(ALONE)
"""The rounds of a loop that is alone on its instance."""


def open_rounds(instance: dg.DagsterInstance, loop: LoopFolder) -> list[str]:
    return sorted(instance.get_dynamic_partitions(loop.names.rounds))


def next_round(instance: dg.DagsterInstance, loop: LoopFolder) -> str:
    """The key after those of all rounds that there are or ever were: no number is used twice."""
    keys = [*open_rounds(instance, loop), *known_rounds(loop)]
    number = max((round_number(key) or 0 for key in keys), default=0) + 1
    while any(loop.ledger.size(round_key(number), "train")):
        number += 1
    return round_key(number)


def open_next_round(instance: dg.DagsterInstance, loop: LoopFolder) -> str:
    """Add the partition after the newest round and return its key."""
    key = next_round(instance, loop)
    add_partition(instance, loop, key)
    return key


def close_round(instance: dg.DagsterInstance, loop: LoopFolder, key: str) -> None:
    """Remove a round's partition; what was made of it stays on disk."""
    if instance.has_dynamic_partition(loop.names.rounds, key):
        instance.delete_dynamic_partition(loop.names.rounds, key)


def add_partition(instance: dg.DagsterInstance, loop: LoopFolder, key: str) -> None:
    """Add the partition of a round, where it is not there."""
    instance.add_dynamic_partitions(loop.names.rounds, [key])


def open_import_round(instance: dg.DagsterInstance, loop: LoopFolder) -> str:
    add_partition(instance, loop, IMPORT_ROUND)
    return IMPORT_ROUND
