"""Copies of a training's states in a loop's store, from which another machine goes on. Importing this imports no torch.

A training never fails for a copy that cannot be written or read: it is said, and this machine's own states count.
"""

import logging
import shutil
import tempfile
import time
from pathlib import Path

from rlhf_dagster.common.files import make_folder, sync_folder, sync_tree
from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.base import Store
from rlhf_dagster.training.runtime.state_folders import BESIDE, STATE_RECORD, damage, is_of, step_of

COPY_PATIENCE = 600.0
"""Seconds without a further try after a copy has failed: a store that is away answers late, and training waits."""
_log = logging.getLogger("rlhf_dagster.training")


class StateCopies:
    """The newest state of one training, in the folder ``folder`` of ``store``, which is not the training's own disk."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store, self.folder = store, folder
        self._not_before = 0.0

    def upload(self, state: Path) -> None:
        """Copy a state, and remove the copies of other states once this one is whole."""
        if time.monotonic() < self._not_before:
            return
        try:
            self.store.upload(state, f"{self.folder}/{state.name}")
            for name in self._names():
                if name != state.name:
                    self.store.delete(f"{self.folder}/{name}")
        except (UserError, OSError) as error:
            self._not_before = time.monotonic() + COPY_PATIENCE
            _log.warning("The training's %s is kept on this machine alone: %s", state.name, error)

    def fetch(self, into: Path, identity: str, after: int) -> Path | None:
        """Bring the newest state of this training whose step is above ``after`` into a local folder; None without."""
        try:
            names = [name for name in reversed(self._names()) if step_of(name) > after]
            return next(filter(None, (self._fetched(name, into, identity) for name in names)), None)
        except (UserError, OSError) as error:
            _log.warning("States of other machines are not looked for: %s", error)
            return None

    def clear(self) -> None:
        """Remove all copies."""
        try:
            self.store.delete(self.folder)
        except (UserError, OSError) as error:
            _log.warning("%s/%s was not removed: %s", self.store.address, self.folder, error)

    def _names(self) -> list[str]:
        """Names of the whole copies, oldest first."""
        keys = (key.removeprefix(f"{self.folder}/") for key in self.store.list(self.folder))
        return sorted(
            key.removesuffix(f"/{STATE_RECORD}") for key in keys if key.count("/") == 1 and key.endswith(STATE_RECORD)
        )

    def _fetched(self, name: str, into: Path, identity: str) -> Path | None:
        make_folder(into)
        beside = Path(tempfile.mkdtemp(prefix=BESIDE, dir=into))
        try:
            self.store.download(f"{self.folder}/{name}", beside)
            if wrong := damage(beside):
                _log.warning("The copy %s/%s/%s is damaged (%s).", self.store.address, self.folder, name, wrong)
            elif is_of(beside, identity):
                return _named(beside, into / name)
            return None
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _named(beside: Path, state: Path) -> Path:
    sync_tree(beside)
    beside.rename(state)
    sync_folder(state.parent)
    return state
