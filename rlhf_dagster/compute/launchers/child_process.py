"""`compute.launch: process`: a training in a child process under a guard, alone or as several ranks of `torchrun`."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from rlhf_dagster.common.child_processes import plain_environment, python_command
from rlhf_dagster.common.files import cache_folder, writing
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
from rlhf_dagster.compute.launchers.base import Launcher
from rlhf_dagster.compute.launchers.on_this_machine import prepare_here
from rlhf_dagster.compute.work import (
    CANCELLED,
    TRAINING_LOG,
    Trained,
    TrainingDied,
    TrainingFailed,
    Work,
    tail_of_log,
    trained_by,
)
from rlhf_dagster.compute.worker import CANNOT_WRITE
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.storage.known import CLOUD_VARIABLES
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.functions import variables_of
from rlhf_dagster.training.specs import OnStep, Spec, spec_to_json

_POLL = 0.2
HURRY = 15.0
"""Seconds that a guard has beyond the grace to end what it guards."""


def _train(stage: str, spec: Spec, work: Work, progress: OnStep, lock: int) -> Trained:
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
    return trained_by(outcome)


def _without_outcome(stage: str, work: Work, code: int, processes: int) -> Exception:
    """Why a training process has ended without saying what became of it."""
    if code == CANNOT_WRITE:
        return UserError(
            f"{work.folder}: {stage} could not write its outcome here; make room, and train it again: it goes on from "
            "its last state."
        )
    killed = code > 128
    reason = f"killed by signal {code - 128}" if killed else f"exit code {code}"
    message = "\n".join([f"The training process of {stage} ended ({reason}).", *tail_of_log(work)])
    # `torchrun` has the same exit code for anything that happens to its ranks.
    return TrainingDied(message) if killed or processes > 1 else TrainingFailed(message)


CHILD_PROCESS = Launcher(prepare_here, _train)
