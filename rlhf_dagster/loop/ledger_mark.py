"""What a loop keeps in mind of its ledger, so that labels that were read and are gone are noticed."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from rlhf_dagster.common.files import write_atomically, write_once
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.ledger.rows import LedgerState

MARK_FILE = "ledger.json"


@dataclass(frozen=True)
class LedgerMark:
    """How far a loop has read its ledger."""

    loop: str
    """The loop's own id, made at random; the ledger knows it too."""
    identity: str
    """Of the ledger; empty where it is not known, as in a loop of version 0.1."""
    position: int
    annotations: int
    """Annotation versions that the ledger held then."""
    kind: str
    """Of the label store that they came through."""

    def lost(self, state: LedgerState | None) -> str:
        """What of this is not in a ledger any more, as a clause; empty where all is there.

        ``state`` is None for a ledger that is not there, or is an empty file.
        """
        read = f"{self.annotations:,} annotations up to position {self.position} were read from it"
        if not self.annotations:
            return ""
        if state is None:
            return f"is missing or empty, and {read}"
        if self.identity not in ("", state.identity):
            return f"is not the one that this loop has worked with, and {read.replace('it', 'that one')}"
        if state.position < self.position or state.annotations < self.annotations:
            return f"has gone back to {state.annotations:,} annotations up to position {state.position}, and {read}"
        return ""


class MarkKeeper:
    """Keeps the mark of a loop's ledger; a :class:`~rlhf_dagster.labeling.embedded.LedgerWatch`."""

    def __init__(self, root: Path, kind: str) -> None:
        self._path, self._kind = root / MARK_FILE, kind

    def read(self) -> LedgerMark | None:
        """The mark; None before the loop has used its ledger. Raises UserError where the file is damaged."""
        try:
            return LedgerMark(**json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise UserError(
                f"{self._path} is damaged, which says how far the ledger was read; `rlhf ledger continue LOOP` makes "
                "it again from the ledger."
            ) from None

    def loop_id(self, state: LedgerState) -> str:
        """The loop's id; one that has none yet gets that of the ledger, or a new one."""
        mark = self.read()
        if mark is None:
            loop = state.loop or new_id()
            write_once(self._path, _as_bytes(LedgerMark(loop, state.identity, 0, 0, self._kind)))
            mark = self.read()
        return mark.loop if mark else ""

    def was_read(self, state: LedgerState) -> None:
        """Move the mark on."""
        loop, mark = self.loop_id(state), self.read()
        moved = LedgerMark(loop, state.identity, state.position, state.annotations, self._kind)
        if mark is None or (moved != mark and moved.position >= mark.position):
            self.write(moved)

    def write(self, mark: LedgerMark) -> None:
        write_atomically(self._path, _as_bytes(mark))


def new_id() -> str:
    """The id of a loop."""
    return secrets.token_hex(8)


def mark_of_tables(label_tables: Iterable[pd.DataFrame]) -> LedgerMark | None:
    """The mark that a loop of version 0.1 did not keep, from its tables of LABELS; None before the first label."""
    found = [table for table in label_tables if len(table)]
    positions = [int(table["position"].max()) for table in found if "position" in table]
    annotations = sum(len(table) for table in found)
    return LedgerMark("", "", max(positions, default=0), annotations, "") if found else None


def _as_bytes(mark: LedgerMark) -> bytes:
    return (json.dumps(asdict(mark), indent=1, sort_keys=True) + "\n").encode()
