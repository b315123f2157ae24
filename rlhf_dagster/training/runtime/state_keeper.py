"""Writing and finding the states of unfinished training."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from rlhf_dagster.errors import first_line
from rlhf_dagster.training.runtime.distributed import barrier, broadcast_text, is_main
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped

IDENTITY, SIZES, TENSORS = "identity.txt", "sizes.json", "state.pt"
_WRITE, _STOP = "write", "stop:"
_log = logging.getLogger("rlhf_dagster.training")


class StateKeeper:
    """Writes the states of one training, after steps where one is due or the training is to stop; finds the newest.

    A state is a folder ``state-STEP``, written under another name and then renamed. The state before is removed only
    afterwards, so that a full disk, or a kill at any moment, leaves the last good state. States of another ``identity``
    (see :func:`~rlhf_dagster.training.runtime.resuming.fingerprint`) are removed. With several ranks, the main rank
    decides and writes, and every rank must call the same methods.
    """

    def __init__(self, checkpointing: Checkpointing, identity: str) -> None:
        self._checkpointing = checkpointing
        self._folder = checkpointing.folder
        self._written = time.monotonic()
        if self._folder is not None and is_main():
            _keep_only(self._folder, identity)

    def newest(self) -> Path | None:
        """The folder of the newest whole state, the same on every rank; None where the training begins."""
        return Path(found) if (found := broadcast_text(str(self._newest_whole() or ""))) else None

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state, as :meth:`after_step` wrote it, with tensors on ``device``; None without one."""
        newest = self.newest()
        return None if newest is None else torch.load(newest / TENSORS, map_location=device, weights_only=True)

    def after_step(self, step: int, state: Callable[[], dict[str, Any]]) -> None:
        """Write ``state()`` where a state is due; raises TrainingStopped where the training is to stop.

        The state has only tensors, numbers, texts, lists, tuples and dicts, so that reading it runs no code.
        """
        due, reason = self.verdict()
        if due:
            self.write(step, lambda folder: torch.save(state(), folder / TENSORS))
        if reason:
            raise TrainingStopped(reason)

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The result of ``make``, on the CPU; saved beside the states, where a training that goes on finds it again."""
        path = None if self._folder is None else self._folder / f"{name}.pt"
        there = is_main() and path is not None and path.is_file()
        if found := broadcast_text(str(path) if there else ""):
            return torch.load(found, map_location="cpu", weights_only=True)
        made = make().cpu()
        if path is not None and is_main():
            _save_beside(made, path)
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

    def _verdict(self) -> str:
        if reason := self._checkpointing.stop():
            return _STOP + reason
        return _WRITE if time.monotonic() - self._written >= self._checkpointing.every_seconds else ""

    def _write(self, folder: Path, step: int, fill: Callable[[Path], None]) -> None:
        before = _states(folder)
        beside = Path(tempfile.mkdtemp(prefix=".state-", dir=folder))
        try:
            fill(beside)
            (beside / SIZES).write_text(json.dumps(_sizes(beside)), encoding="utf-8")
            beside.rename(folder / f"state-{step:09d}")
        # What PyTorch and safetensors raise where a disk is full.
        except (OSError, RuntimeError, SafetensorError) as error:
            _log.warning("The state after step %d was not kept; is the disk full? (%s)", step, first_line(error))
        else:
            for state in before:
                shutil.rmtree(state, ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _newest_whole(self) -> Path | None:
        """The newest state that is complete; damaged states that are newer are removed."""
        if self._folder is None or not is_main():
            return None
        for state in reversed(_states(self._folder)):
            if _is_whole(state):
                return state
            _log.warning("The training's %s is damaged; it is removed.", state.name)
            shutil.rmtree(state)
        return None


def _keep_only(folder: Path, identity: str) -> None:
    """Leave in ``folder`` only whole states of the training with this identity."""
    path = folder / IDENTITY
    if not path.is_file() or path.read_text(encoding="utf-8") != identity:
        if folder.is_dir() and _states(folder):
            _log.info("The state in %s is of a training with other inputs or settings; this one begins anew.", folder)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path.write_text(identity, encoding="utf-8")
    for leftover in folder.glob(".state-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _save_beside(tensor: Tensor, path: Path) -> None:
    """Write under another name and rename. A failure is only logged, as the tensor can be made again."""
    beside = path.with_name(f".{path.name}")
    try:
        torch.save(tensor, beside)
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        _log.warning("%s was not kept (%s).", path.name, first_line(error))
        beside.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*"))


def _sizes(state: Path) -> dict[str, int]:
    return {str(path.relative_to(state)): path.stat().st_size for path in state.rglob("*") if path.is_file()}


def _is_whole(state: Path) -> bool:
    """Whether every file has the size with which it was written."""
    try:
        written = json.loads((state / SIZES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return written == {name: size for name, size in _sizes(state).items() if name != SIZES}
