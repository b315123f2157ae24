"""What `rlhf check` finds."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    sentence: str
    """What it is, with the file's name, and what it costs."""
    mend: str
    """The command or the act that mends it."""
    repair: Callable[[], str] | None = None
    """What `--repair` does; None where only a person can decide. Returns what was done."""
