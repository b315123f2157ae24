"""Names of rounds, which sort in the order of rounds."""

import re

from rlhf_dagster.errors import UserError

ROUND_KEY = re.compile(r"round-\d{4}")


def round_key(number: int) -> str:
    """``round-0001`` for 1; ``round-0000`` holds imported judgments."""
    return f"round-{number:04d}"


def require_round_key(key: str) -> None:
    """The UI lets people add partitions of any name; raises UserError for one that is no round's."""
    if not ROUND_KEY.fullmatch(key):
        raise UserError(f"{key}: rounds are called {round_key(1)}, {round_key(2)} and so on; delete this partition.")


IMPORT_ROUND = "round-0000"
"""The round that holds imported judgments."""

IMPORTED_POLICY = "imported"
