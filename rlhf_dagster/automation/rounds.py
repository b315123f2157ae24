"""Labelling rounds as partitions."""

import re

import dagster as dg

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop_folder import IMPORT_ROUND

rounds = dg.DynamicPartitionsDefinition(name="rounds")
"""Keys sort in the order of rounds. They are event driven, so dynamic and not tied to a calendar."""


ROUND_KEY = re.compile(r"round-\d{4}")


def round_key(number: int) -> str:
    """``round-0001`` for 1; ``round-0000`` holds imported judgments."""
    return f"round-{number:04d}"


def require_round_key(key: str) -> None:
    """The UI lets people add partitions of any name; raises UserError for one that is no round's."""
    if not ROUND_KEY.fullmatch(key):
        raise UserError(f"{key}: rounds are called {round_key(1)}, {round_key(2)} and so on; delete this partition.")


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
