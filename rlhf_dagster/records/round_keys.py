"""Names of rounds: ``round-`` and four digits, so that they sort in the order of rounds."""

import re

from rlhf_dagster.errors import UserError

IMPORT_ROUND = "round-0000"
"""The round that holds imported judgments."""
IMPORTED_POLICY = "imported"
"""In the place of a policy's id where responses were not sampled here."""
LAST_NUMBER = 9999
_KEY = re.compile(r"round-([0-9]{4})")


def round_key(number: int) -> str:
    """``round-0001`` for 1; raises UserError beyond 9999, whose name would sort before earlier ones."""
    if number > LAST_NUMBER:
        raise UserError(f"A loop has at most {LAST_NUMBER:,} rounds; go on in a new loop from this one's champion.")
    return f"round-{number:04d}"


def round_number(key: str) -> int | None:
    """1 for ``round-0001``; None for what is no round's name."""
    found = _KEY.fullmatch(key)
    return int(found[1]) if found else None


def require_round_key(key: str) -> None:
    """Raise UserError where ``key`` is no round's name: the UI lets people add partitions of any name."""
    if round_number(key) is None:
        raise UserError(f"{key}: rounds are called {round_key(1)}, {round_key(2)} and so on; delete this partition.")
