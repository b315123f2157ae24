"""Labelling rounds as partitions."""

import dagster as dg

from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.rounds import round_to_open
from rlhf_dagster.records.loop_names import ALONE, LoopNames
from rlhf_dagster.records.round_keys import IMPORT_ROUND


def rounds_of(names: LoopNames) -> dg.DynamicPartitionsDefinition:
    """Keys sort in the order of rounds. Partitions are dynamic because events open rounds, not a calendar."""
    return dg.DynamicPartitionsDefinition(name=names.rounds)


rounds = rounds_of(ALONE)
"""The rounds of a loop that is alone on its instance."""


def open_rounds(instance: dg.DagsterInstance, loop: LoopFolder) -> list[str]:
    return sorted(instance.get_dynamic_partitions(loop.names.rounds))


def next_round(instance: dg.DagsterInstance, loop: LoopFolder, wanted: str = "") -> str:
    """The key of the round to open; raises UserError where another one is ``wanted``."""
    return round_to_open(loop, open_rounds(instance, loop), wanted)


def open_next_round(instance: dg.DagsterInstance, loop: LoopFolder, wanted: str = "") -> str:
    """Add the partition after the newest round and return its key; raises UserError where another one is ``wanted``."""
    key = next_round(instance, loop, wanted)
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
