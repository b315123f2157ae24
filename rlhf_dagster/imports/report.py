"""What an import did."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImportReport:
    """``added``, ``already_there`` and the number of ``refused`` add up to ``read``."""

    read: int
    """Lines that are not blank."""
    added: int
    already_there: int
    """Also a prompt or demonstration that was there without its user, whose name it now has as a pseudonym."""
    refused: tuple[tuple[int, str], ...]
    """Line number, counted from 1, and the reason."""
