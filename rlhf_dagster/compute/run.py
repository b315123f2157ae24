"""Run a training: in this process, or in one of its own under a guard, alone or as several ranks."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rlhf_dagster.common.child_processes import plain_environment, python_command
from rlhf_dagster.common.files import cache_folder, writing
from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.compute.devices import leased, visible_devices
from rlhf_dagster.compute.exchange import (
    MESSAGES,
    OUTCOME,
    REQUEST,
    Heard,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.tracking import TrainingLog, tracking
from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.compute.usage import measuring
from rlhf_dagster.compute.worker import CANNOT_WRITE, uses_cuda
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.stop_cord import StopCord
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import CLOUD_VARIABLES
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.functions import variables_of
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.state_copies import StateCopies
from rlhf_dagster.training.specs import OnStep, Spec, TrainingResult, spec_to_json

TRAINING_LOG, CANCELLED = "training.log", "cancelled"
LOG_TAIL = 12
"""Lines of a dead training's log that its error shows."""
_POLL = 0.2
HURRY = 15.0
"""Seconds that a guard has beyond the grace to end what it guards."""


class TrainingDied(RuntimeError):  # noqa: N818
    """The training process ended without an outcome, as if killed; trying again goes on from its last state."""


class TrainingFailed(RuntimeError):  # noqa: N818
    """The training process ended by an unexpected error, which trying again would not mend."""


@dataclass(frozen=True)
class Trained:
    """A training's result and what it cost (:func:`rlhf_dagster.compute.usage.measuring`)."""

    result: TrainingResult
    usage: dict[str, float] = field(default_factory=dict)


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


def run_training(stage: str, spec: Spec, work: Work, progress: OnStep) -> Trained:
    """Train ``spec`` (whose output is ``work.output``) where its compute settings say.

    Raises:
        TrainingStopped: the stop cord was pulled; the state is kept, and the next try goes on from it.
        TrainingDied: the process was killed; the state is kept.
        TrainingFailed: the process ended by an unexpected error; the end of its log is in the message.
        UserError: what the user gave cannot be trained.
    """
    from rlhf_dagster.compute.memory import require_memory, settled

    with work.locked() as lock:
        work.prepare()
        spec = settled(spec)
        require_memory(spec)
        training_log = _log_of(work, spec.compute)
        with tracking(training_log, progress) as logged:
            in_process = spec.compute.launch == "in_process"
            trained = (
                _in_process(stage, spec, work, logged) if in_process else _in_child(stage, spec, work, logged, lock)
            )
            if training_log is not None:
                training_log.finish(trained.result.metrics)
            return trained


def _log_of(work: Work, compute: ComputeSettings) -> TrainingLog | None:
    return None if work.logs is None else TrainingLog(work.logs, work.project, work.folder.name, compute.trackers)


def _in_process(stage: str, spec: Spec, work: Work, progress: OnStep) -> Trained:
    stop = StopCord(work.store).sentence
    checkpointing = Checkpointing(work.state, spec.compute.checkpoint_seconds, stop, work.copies)
    with measuring(uses_cuda(spec.compute)) as usage:
        result = train_here(stage, spec, progress, checkpointing)
    return Trained(result, usage)


def _in_child(stage: str, spec: Spec, work: Work, progress: OnStep, lock: int) -> Trained:
    compute, request = spec.compute, work.folder / REQUEST
    asked = Request(
        stage,
        spec_to_json(spec),
        str(work.state),
        compute.checkpoint_seconds,
        str(work.folder / CANCELLED),
        work.store.address,
        work.copies.folder if work.copies else "",
    )
    write_record(request, asked)
    with ExitStack() as stack:
        environment, inherited = _devices(compute, stack)
        environment = _environment(spec, work) | environment
        log = stack.enter_context(_opened_log(work))
        command = [*_python(compute.processes), "rlhf_dagster.compute.worker", str(request)]
        with guarded(
            command, compute.grace_seconds, log, work.folder / CANCELLED, environment, (lock, *inherited)
        ) as guard:
            _follow(guard, work.folder / MESSAGES, progress)
    return _outcome(stage, work, guard.returncode, compute.processes)


def _opened_log(work: Work) -> IO[bytes]:
    with writing(work.folder):
        return (work.folder / TRAINING_LOG).open("wb")


def _python(processes: int) -> list[str]:
    if processes == 1:
        return python_command("-m")
    return python_command("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m")


@contextmanager
def guarded(
    command: list[str],
    grace: float,
    log: IO[bytes],
    stop_file: Path | None = None,
    environment: dict[str, str] | None = None,
    inherited: tuple[int, ...] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command under a guard that ends it, and all that it started, when the block is left or this process dies.

    ``inherited`` are open files that the guard holds on to. Leaving the block waits until nothing is left.
    """
    options = ["--grace", str(grace), *(["--stop-file", str(stop_file)] if stop_file else [])]
    guard = subprocess.Popen(  # noqa: S603
        [*python_command("-m", "rlhf_dagster.compute.guard"), *options, "--", *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=inherited,
        start_new_session=True,
    )
    try:
        yield guard
    finally:
        if guard.stdin:
            guard.stdin.close()
        _wait(guard, grace + HURRY)


def _wait(guard: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a guard; one that hangs is killed, and the system kills its command with it."""
    try:
        guard.wait(seconds)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def _environment(spec: Spec, work: Work) -> dict[str, str]:
    """The child's environment: no secret but those that this training needs."""
    stores = () if isinstance(work.store, LocalStore) else CLOUD_VARIABLES
    return plain_environment([*variables_of(spec), *spec.compute.pass_variables], stores)


def _devices(compute: ComputeSettings, stack: ExitStack) -> tuple[dict[str, str], tuple[int, ...]]:
    """What names the child's GPUs in its environment, where it uses any, and the open files that hold them."""
    devices = [] if compute.device == "cpu" else visible_devices()
    if not devices:
        return {}, ()
    lease = stack.enter_context(leased(compute.processes, devices, cache_folder() / "devices"))
    return {"CUDA_VISIBLE_DEVICES": ",".join(lease.devices)}, lease.files


def _follow(guard: subprocess.Popen[bytes], messages: Path, progress: OnStep) -> None:
    """Pass progress on as it is written, until the training ends."""
    heard = Heard(messages, progress)
    running = True
    while running:
        running = guard.poll() is None
        heard.pass_on()
        if running:
            time.sleep(_POLL)
    heard.end()


def _outcome(stage: str, work: Work, code: int, processes: int) -> Trained:
    path = work.folder / OUTCOME
    if not path.exists():
        raise _without_outcome(stage, work, code, processes)
    try:
        outcome = read_record(TrainingOutcome, path)
    except Damaged as damaged:
        raise Damaged(f"{damaged} Train {stage} again: it goes on from its last state.") from None
    if outcome.error:
        raise UserError(outcome.error)
    if outcome.stopped:
        raise TrainingStopped(outcome.stopped)
    result = json.loads(outcome.result)
    return Trained(TrainingResult(**result | {"folder": Path(result["folder"])}), outcome.usage)


def _without_outcome(stage: str, work: Work, code: int, processes: int) -> Exception:
    """Why a training process has ended without saying what became of it."""
    if code == CANNOT_WRITE:
        return UserError(
            f"{work.folder}: {stage} could not write its outcome here; make room, and train it again: it goes on from "
            "its last state."
        )
    killed = code > 128
    reason = f"killed by signal {code - 128}" if killed else f"exit code {code}"
    lines = lines_of((work.folder / TRAINING_LOG).read_text(encoding="utf-8", errors="replace"))[-LOG_TAIL:]
    message = "\n".join([f"The training process of {stage} ended ({reason}).", *lines])
    # `torchrun` has the same exit code for anything that happens to its ranks.
    return TrainingDied(message) if killed or processes > 1 else TrainingFailed(message)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether the open ``file`` is still the one at ``path``: it may have been removed while it was waited for."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
