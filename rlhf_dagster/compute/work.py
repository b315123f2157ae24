"""Where a training works, and how it ends: the folder, its lock, its result, and the errors of a lost one."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rlhf_dagster.common.files import writing
from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.compute.exchange import TrainingOutcome
from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.resuming import TrainingStopped
from rlhf_dagster.training.runtime.state_copies import StateCopies
from rlhf_dagster.training.specs import TrainingResult

TRAINING_LOG, CANCELLED = "training.log", "cancelled"
LOG_TAIL = 12
"""Lines of a dead training's log that its error shows."""
_POLL = 0.2


class TrainingDied(RuntimeError):  # noqa: N818
    """The training process ended without an outcome, as if killed; trying again goes on from its last state."""


class TrainingFailed(RuntimeError):  # noqa: N818
    """The training process ended by an unexpected error, which trying again would not mend."""


@dataclass(frozen=True)
class Trained:
    """A training's result and what it cost (:func:`rlhf_dagster.compute.usage.measuring`)."""

    result: TrainingResult
    usage: dict[str, float] = field(default_factory=dict)
    ray_job: str = ""
    """The job of Ray that trained it; empty where none did."""


@dataclass(frozen=True)
class Work:
    """Where one training works: ``folder`` holds its state, its log and, at the end, its output."""

    folder: Path
    store: Store
    """The loop's store, whose stop cord ends the training. One that is not a folder gets a copy of each state."""
    logs: Path | None = None
    """Folder of metrics and TensorBoard events, which stay; None writes none."""
    project: str = ""
    """Name of the project in W&B and MLflow that gets the run."""

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def copies(self) -> StateCopies | None:
        """Where the states go so that another machine can go on from them; None where the store is a folder."""
        if isinstance(self.store, LocalStore):
            return None
        return StateCopies(self.store, f"work/{self.folder.name}/state")

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold this training's lock: wait until an earlier try of it has ended, and keep a later try waiting.

        Gives the lock file's descriptor: a child that inherits it keeps the lock, also where this process is killed.
        """
        while True:
            with self._opened_lock() as file:
                if _try_lock(file) and _is_at(file, self._lock):
                    yield file.fileno()
                    return
            time.sleep(_POLL)

    def prepare(self) -> None:
        """Remove what an earlier try has left, but for the state from which this one goes on."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.iterdir():
                if left != self.state:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def clear(self) -> None:
        """Remove all that is left of a training whose output is where it belongs."""
        if self.copies is not None:
            self.copies.clear()
        with self.locked():
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.unlink(missing_ok=True)

    def _opened_lock(self) -> IO[str]:
        with writing(self.folder.parent):
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            return self._lock.open("a")

    @property
    def _lock(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.lock")


def trained_by(outcome: TrainingOutcome) -> Trained:
    """What a training process has made; raises UserError where it refused, TrainingStopped where it was stopped."""
    if outcome.error:
        raise UserError(outcome.error)
    if outcome.stopped:
        raise TrainingStopped(outcome.stopped)
    result = json.loads(outcome.result)
    return Trained(TrainingResult(**result | {"folder": Path(result["folder"])}), outcome.usage, outcome.ray_job)


def tail_of_log(work: Work) -> list[str]:
    """The last lines of a training's log; none where it has no log."""
    path = work.folder / TRAINING_LOG
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return lines_of(text)[-LOG_TAIL:]


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the open ``file`` is still the one at ``path``: it may have been removed while it was waited for."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
