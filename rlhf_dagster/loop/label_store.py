"""The label store of a loop and its ledger: where they are, and whether they hold what was read from them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.counts import RoundReading
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.tokens import token_for
from rlhf_dagster.labeling.ledger.address import LEDGER_FILE, LedgerAddress
from rlhf_dagster.labeling.ledger.rows import LedgerState
from rlhf_dagster.labeling.ledger.writer import belongs_to_another
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.loop.ledger_mark import LedgerMark, MarkKeeper, mark_of_tables, new_id
from rlhf_dagster.records.pseudonyms import Pseudonyms
from rlhf_dagster.storage.base import Store

if TYPE_CHECKING:
    from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore

_Store = TypeVar("_Store", bound=EmbeddedLabelStore)


class LoopLedger(EmbeddedLabelStore):
    """A loop's ledger as its label store: what came through Label Studio before is read as it was meant."""

    def read(self, round_key: str, purpose: str, since: int | None = None) -> tuple[list[Annotation], int]:
        annotations, position = super().read(round_key, purpose, since)
        return list(self.reading(round_key, purpose).translate(annotations)), position

    def reading(self, round_key: str, purpose: str) -> RoundReading:
        from rlhf_dagster.labeling.label_studio.results import decoding
        from rlhf_dagster.labeling.label_studio.state import SyncState

        return decoding(self, SyncState(self.address, ""), round_key, purpose)


def ledger_address(config: LoopConfig, root: Path) -> LedgerAddress:
    """Where the loop's ledger is."""
    place = LedgerAddress.of(config.ledger, config.name) if config.ledger else LedgerAddress.of(root / LEDGER_FILE)
    return place.beside(root)


@dataclass(frozen=True)
class LedgerOfLoop:
    """A loop's ledger before it is opened."""

    config: LoopConfig
    root: Path
    store: Store
    label_tables: Callable[[], Iterable[pd.DataFrame]]
    """Reads the tables of labels (schema LABELS) that the loop has made, in which version 0.1 kept what was read."""

    def open(self, kind: type[_Store]) -> _Store:
        """The ledger. Raises UserError where labels that were read from it are gone, or where it is another loop's."""
        kept = self._keeper.read()
        mark = kept or mark_of_tables(self.label_tables())
        if mark and self.is_missing():
            self._refuse(mark, None)
        store = kind(self.address, self._keeper)
        state = store.state()
        if mark:
            self._refuse(mark, state)
        # A ledger in the loop's own folder is its own, also where nothing was kept in mind.
        if (kept or self.config.ledger) and not self._is_own(state):
            raise UserError(belongs_to_another(self.address))
        return store

    def go_on(self) -> str:
        """Let the loop go on with the ledger that is there now; what of the labels read is gone, as a clause.

        Positions continue after the last one that was read, so that none is used twice. With Label Studio, labels that
        the server still has come back when they are read next.
        """
        kept, missing = self._kept_if_readable(), self.is_missing()
        mark = kept or mark_of_tables(self.label_tables())
        store = EmbeddedLabelStore(self.address)
        lost = mark.lost(None if missing else store.state()) if mark else ""
        store.continue_after(mark.position if mark else 0)
        state = store.state()
        loop = state.loop or (kept.loop if kept else new_id())
        kind = self.config.label_store.kind
        self._keeper.write(LedgerMark(loop, state.identity, state.position, state.annotations, kind))
        return lost

    @cached_property
    def address(self) -> LedgerAddress:
        return ledger_address(self.config, self.root)

    @property
    def _keeper(self) -> MarkKeeper:
        return MarkKeeper(self.store, self.config.label_store.kind)

    def _is_own(self, state: LedgerState) -> bool:
        """Whether a ledger is nobody's yet or this loop's, which another machine may have begun a moment ago.

        The loop's id is in its mark before it is in the ledger, so that it is looked up after it.
        """
        kept = self._keeper.read() if state.loop else None
        return state.loop in ("", kept.loop if kept else "")

    def _kept_if_readable(self) -> LedgerMark | None:
        try:
            return self._keeper.read()
        except UserError:
            return None

    def is_missing(self) -> bool:
        """Whether it is a file that is not there, or is empty."""
        path = self.address.path
        return path is not None and (not path.exists() or path.stat().st_size == 0)

    def _refuse(self, mark: LedgerMark, state: LedgerState | None) -> None:
        lost = mark.lost(state)
        if lost:
            raise UserError(
                f"The ledger {self.address} {lost}: bring it back from a backup, or correct `ledger` in loop.yaml; or "
                "`rlhf ledger continue LOOP` goes on with what is there, and with Label Studio the labels that the "
                "server still has are read again."
            )


def open_label_studio(
    config: LoopConfig,
    root: Path,
    ledger: EmbeddedLabelStore,
    decided: Callable[[str], bool],
    pseudonyms: Callable[[], Pseudonyms],
) -> "LabelStudioStore":
    """The store; nothing is asked of the server, and no token is needed, before the first request.

    ``decided`` says which rounds are read from the ledger alone; ``pseudonyms`` are the loop's.
    """
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore

    return LabelStudioStore(
        ledger,
        config.label_store.url,
        client=lambda: label_studio_client(config, root),
        settings=config.labeling,
        loop_name=config.name,
        folder=root,
        decided=decided,
        pseudonyms=pseudonyms,
    )


def label_studio_client(config: LoopConfig, root: Path) -> "LabelStudioClient":
    """A client of the loop's server; raises UserError where no token is to be found, or to be sent there."""
    from rlhf_dagster.labeling.label_studio.client import LabelStudioClient

    settings = config.label_store
    return LabelStudioClient(settings.url, token_for(settings, root), settings.timeout)
