"""Writing and finding the states of unfinished training."""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from rlhf_dagster.errors import first_line
from rlhf_dagster.training.runtime.distributed import barrier, broadcast_text, is_main
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.sharding.states import holds_shards, outline_of, read_sharded, write_sharded
from rlhf_dagster.training.runtime.state_folders import (
    BESIDE,
    damage,
    is_of,
    state_name,
    states_in,
    step_of,
    write_folder,
)

TENSORS, ONCE = "state.pt", "once-"
_WRITE, _STOP = "write", "stop:"
_FAILURES = (OSError, RuntimeError, SafetensorError)
"""What Python, PyTorch and safetensors raise where a disk is full."""
_log = logging.getLogger("rlhf_dagster.training")

Misfit = Callable[[Path], str]
"""Why a training cannot go on from the state in a folder; empty where it can."""


def fits(state: Any) -> str:
    """No state is a misfit."""
    return ""


class StateKeeper:
    """Writes the states of one training, after steps where one is due or the training is to stop; finds the newest.

    A state is a folder (:mod:`rlhf_dagster.training.runtime.state_folders`), synced and then named. The state before is
    removed only afterwards, so that a full disk, a power loss, or a kill at any moment leaves the last good state; one
    whose files are not what was written is not used. States of another ``identity`` (see
    :func:`~rlhf_dagster.training.runtime.resuming.fingerprint`) are removed. With several ranks, the main rank decides
    and writes, and every rank must call the same methods; where the training is ``sharded``, each writes its parts.
    """

    def __init__(self, checkpointing: Checkpointing, identity: str, sharded: bool = False) -> None:
        self._checkpointing, self.sharded = checkpointing, sharded
        self._folder, self._identity = checkpointing.folder, identity
        self._written = time.monotonic()
        if self._folder is not None and is_main():
            _keep_only(self._folder, identity)

    def newest(self, misfit: Misfit = fits) -> Path | None:
        """The folder of the newest whole state, the same on every rank; None where the training begins.

        A state for which ``misfit`` gives a reason is removed as a damaged one is, and said.
        """
        return Path(found) if (found := broadcast_text(str(self._newest_whole(misfit) or ""))) else None

    def load(self, device: torch.device, misfit: Callable[[dict[str, Any]], str] = fits) -> dict[str, Any] | None:
        """The newest state, as :meth:`after_step` wrote it, with tensors on ``device``; None without one.

        A state for which ``misfit`` gives a reason is removed as a damaged one is, and said.
        """
        newest = self.newest(lambda folder: misfit(_outline(folder)))
        if newest is None:
            return None
        if holds_shards(newest):
            return cast("dict[str, Any]", read_sharded(newest, device, self.sharded))
        # Of whole tensors a rank that is to have parts takes those alone.
        return _tensors(newest, device, mmap=self.sharded)

    def after_step(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write ``state()`` where a state is due; raises TrainingStopped where the training is to stop.

        The state has only tensors, numbers, texts, lists, tuples and dicts, so that reading it runs no code.
        """
        due, reason = self.verdict()
        if due and self.sharded:
            self.write_together(step, lambda folder: write_sharded(state(), folder))
        elif due:
            self.write(step, lambda folder: torch.save(state(), folder / TENSORS))
        if reason:
            raise TrainingStopped(reason)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The result of ``make``, on the CPU; saved beside the states, where a training that goes on finds it again."""
        kept = None if self._folder is None else self._folder / f"{ONCE}{name}"
        if found := broadcast_text(_whole(kept) if is_main() and kept is not None else ""):
            return torch.load(Path(found) / TENSORS, map_location="cpu", weights_only=True)
        made = make().cpu()
        if kept is not None and is_main():
            self._keep_once(made, kept)
        barrier()
        return made

    def verdict(self) -> tuple[bool, str]:
        """Whether a state is due, and the reason to stop (empty: none), the same on every rank."""
        text = broadcast_text(self._verdict() if is_main() else "")
        return bool(text) and self._folder is not None, text.removeprefix(_STOP) if text.startswith(_STOP) else ""

    def write(self, step: int, fill: Callable[[Path], None]) -> None:
        """Let ``fill`` put the state after ``step`` into a folder; where ``fill`` fails, the state before stays."""
        if self._folder is not None and is_main():
            self._write(self._folder, step, fill)
        self._written = time.monotonic()
        barrier()

    def write_together(self, step: int, fill: Callable[[Path], None]) -> None:
        """As :meth:`write`, but every rank calls ``fill`` with the same folder, on a disk that all of them see."""
        if self._folder is None:
            return
        if is_main():
            self._write_together(self._folder, step, fill)
        else:
            _fill_announced(fill)
        self._written = time.monotonic()
        barrier()

    def _verdict(self) -> str:
        if reason := self._checkpointing.stop():
            return _STOP + reason
        return _WRITE if time.monotonic() - self._written >= self._checkpointing.every_seconds else ""

    def _write(self, folder: Path, step: int, fill: Callable[[Path], None]) -> None:
        before, state = states_in(folder), folder / state_name(step)

        def fill_own(beside: Path) -> None:
            fill(beside)
            self._checkpointing.require_own()

        try:
            write_folder(state, self._identity, fill_own)
        except _FAILURES as error:
            _log.warning("The state after step %d was not kept; is the disk full? (%s)", step, first_line(error))
            return
        for old in before:
            shutil.rmtree(old, ignore_errors=True)
        if self._checkpointing.copies is not None:
            self._checkpointing.copies.upload(state)

    def _write_together(self, folder: Path, step: int, fill: Callable[[Path], None]) -> None:
        announced: list[Path] = []

        def announce_and_fill(beside: Path) -> None:
            announced.append(beside)
            broadcast_text(str(beside))
            fill(beside)

        self._write(folder, step, announce_and_fill)
        if not announced:  # for want of a folder, which the others wait for
            broadcast_text("")

    def _keep_once(self, made: Tensor, kept: Path) -> None:
        """A failure is only logged, as the tensor can be made again."""
        try:
            write_folder(kept, self._identity, lambda folder: torch.save(made, folder / TENSORS))
        except _FAILURES as error:
            _log.warning("%s was not kept (%s).", kept.name, first_line(error))

    def _newest_whole(self, misfit: Misfit) -> Path | None:
        """The newest state to go on from, here or in the loop's store; newer ones that do not serve are removed."""
        if self._folder is None or not is_main():
            return None
        states = states_in(self._folder)
        wrong = {}
        while states and (why := _fault(states[-1], misfit)):
            wrong[states.pop()] = why
        # Before a copy of the same name takes its place.
        for state in wrong:
            shutil.rmtree(state)
        newest = states[-1] if states else None
        fetched = self._fetched(self._folder, newest)
        if fetched is not None and fetched != newest and (why := _fault(fetched, misfit)):
            shutil.rmtree(fetched)
            wrong[fetched], fetched = why, newest
        _say_lost(wrong, fetched)
        return fetched

    def _fetched(self, folder: Path, newest: Path | None) -> Path | None:
        """A newer state that another machine has left in the loop's store, or ``newest``."""
        if self._checkpointing.copies is None:
            return newest
        after = -1 if newest is None else step_of(newest.name)
        return self._checkpointing.copies.fetch(folder, self._identity, after) or newest


def _fill_announced(fill: Callable[[Path], None]) -> None:
    """Fill the folder that the main rank has made. What fails there fails on the main rank too, which says it."""
    folder = broadcast_text("")
    with suppress(*_FAILURES):
        if folder:
            fill(Path(folder))


def _outline(state: Path) -> dict[str, Any]:
    """A state to be compared with a training; tensors in parts have no numbers."""
    if holds_shards(state):
        return cast("dict[str, Any]", outline_of(state))
    return _tensors(state, "cpu", mmap=True)


def _fault(state: Path, misfit: Misfit) -> str:
    """What keeps a training from going on from a state, as part of a sentence; empty where nothing does."""
    if why := damage(state):
        return f"is damaged ({why})"
    return f"does not fit the model ({why})" if (why := misfit(state)) else ""


def _tensors(state: Path, device: torch.device | str, mmap: bool = False) -> dict[str, Any]:
    return torch.load(state / TENSORS, map_location=device, weights_only=True, mmap=mmap)


def _say_lost(wrong: dict[Path, str], newest: Path | None) -> None:
    """What states cost that cannot be gone on from."""
    reached = step_of(newest.name) if newest else 0
    onward = f"goes on from the state after step {reached}" if newest else "begins anew"
    for state, why in wrong.items():
        again = max(0, step_of(state.name) - reached)
        _log.warning(
            "The training's %s %s and is removed; the training %s, and does %d steps again.",
            *(state.name, why, onward, again),
        )


def _keep_only(folder: Path, identity: str) -> None:
    """Leave in ``folder`` only what belongs to the training with this identity."""
    others = [kept for kept in (*states_in(folder), *folder.glob(f"{ONCE}*")) if not is_of(kept, identity)]
    if others:
        _log.info("The state in %s is of a training with other inputs or settings; this one begins anew.", folder)
    for leftover in (*others, *folder.glob(f"{BESIDE}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def _whole(kept: Path) -> str:
    """Where a kept folder is, if it is whole; a damaged one is removed."""
    if not kept.is_dir():
        return ""
    if why := damage(kept):
        _log.warning("The training's %s is damaged (%s); it is made again.", kept.name, why)
        shutil.rmtree(kept)
        return ""
    return str(kept)
