"""What a run asks of a Ray job that works in a folder which every node of the cluster sees.

The two speak by files. ``owner.json`` says which job the folder is of. A run that was killed leaves its job at work;
the next try of the same follows it further, and one of something else ends it. A job that nobody follows ends by
itself.
"""

import logging
import math
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from rlhf_dagster.common.child_processes import SAFE_PATH
from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.compute.exchange import (
    FOLLOWED,
    MESSAGES,
    OUTCOME,
    OWNER_RECORD,
    Heard,
    Owner,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.launchers.ray_jobs import GOING, NO_SUCH_JOB, SUCCEEDED, RayJobs, Unreachable
from rlhf_dagster.compute.work import CANCELLED, TRAINING_LOG, TrainingDied, TrainingFailed, Work, tail_of_log
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.training.specs import OnStep

NO_FOLDER, GAVE_UP, ANOTHERS = 66, 70, 75
"""Exit codes of a job's driver (EX_NOINPUT, EX_SOFTWARE, EX_TEMPFAIL of sysexits.h): the folder is not on its node, its
processes died more often than `compute.ray.restarts`, another job has the folder."""
CLUSTER_PATIENCE = 300.0
"""Seconds for which the cluster may give no answer before its training is taken for lost."""
STOP_PATIENCE = 30.0
"""Seconds that Ray has to end a job that did not end within its grace."""
_POLL, _LOOK, _BEAT, _LOG = 0.2, 2.0, 5.0, 10.0
"""Seconds between looks at progress and at the job, signs of life to the job, and copies of its log."""
_log = logging.getLogger("rlhf_dagster.training")


@dataclass(frozen=True)
class RayTask:
    """What a job is to do."""

    title: str
    """In sentences about it."""
    module: str
    """What runs on the head node, with the folder and the job's name."""
    identity: str
    """Of what comes out, and of the compute settings: a next try follows a job that has the same."""
    compute: ComputeSettings
    write_request: Callable[[], None]
    """Writes into the folder what the job reads first."""


def done_on_ray(task: RayTask, work: Work, progress: OnStep) -> TrainingOutcome:
    """What became of a task; it is done by a job that is there already, or by a new one.

    Raises:
        TrainingDied: the job has ended without an outcome, or Ray gives no answer; the next try goes on.
        TrainingFailed: its processes died too often.
        UserError: Ray is not there, or does not see the folder.
    """
    jobs = RayJobs.at(task.compute.ray.address)
    job = _taken_over(jobs, task, work) or _submitted(jobs, task, work)
    with _ended_with_run(jobs, job, work, task.compute.grace_seconds):
        _follow(_Followed(jobs, job, work), progress)
    _copy_log(jobs, job, work)
    path = work.folder / OUTCOME
    if not path.exists():
        raise _without_outcome(task.title, jobs, job, work)
    try:
        return read_record(TrainingOutcome, path)
    except Damaged as damaged:
        raise Damaged(f"{damaged} Run {task.title} again: it goes on from where it was.") from None


def _taken_over(jobs: RayJobs, task: RayTask, work: Work) -> str | None:
    """The job of an earlier try whose run is gone, where it does the same; others are ended."""
    owner = _owner(work)
    if owner is None:
        return None
    try:
        status = jobs.status(owner.job)
    except Unreachable:
        raise TrainingDied(f"Ray at {jobs.address} gives no answer about the job {owner.job}.") from None
    wanted = owner.identity == task.identity and not (work.folder / CANCELLED).exists()
    if wanted and (status in GOING or (status == SUCCEEDED and _is_done(work))):
        _log.warning("An earlier run has left the job %s on Ray; it is followed further here.", owner.job)
        return owner.job
    if status in GOING:
        _end(jobs, owner.job, work, task.compute.grace_seconds)
    return None


def _is_done(work: Work) -> bool:
    try:
        return bool(read_record(TrainingOutcome, work.folder / OUTCOME).result)
    except (OSError, UserError):
        return False


def _owner(work: Work) -> Owner | None:
    try:
        return read_record(Owner, work.folder / OWNER_RECORD)
    except (OSError, Damaged):
        return None


def _submitted(jobs: RayJobs, task: RayTask, work: Work) -> str:
    """Start a job. From here on an earlier one of this folder, wherever it is, can keep nothing more."""
    work.prepare()
    job = f"rlhf-{work.folder.name}-{uuid.uuid4().hex[:12]}"
    write_record(work.folder / OWNER_RECORD, Owner(job, task.identity))
    task.write_request()
    command = shlex.join(["python", "-P", "-m", task.module, str(work.folder), job])
    jobs.submit(job, command, _environment(task.compute), {"task": task.title, "loop": work.project})
    return job


def _environment(compute: ComputeSettings) -> dict[str, str]:
    """Variables of the job's processes, which everybody sees who sees the dashboard: no secret is among them."""
    threads = max(1, math.floor(compute.ray.per_process.get("CPU", 1)))
    return {SAFE_PATH: "1", "OMP_NUM_THREADS": str(threads), "RAY_DEDUP_LOGS": "0"} | compute.ray.environment


@contextmanager
def _ended_with_run(jobs: RayJobs, job: str, work: Work, grace: float) -> Iterator[None]:
    """End the job where the block is left early: the run was cancelled, or cannot go on."""
    try:
        yield
    except TrainingDied:
        raise
    except BaseException:
        _end(jobs, job, work, grace)
        raise


def _end(jobs: RayJobs, job: str, work: Work, grace: float) -> None:
    """Ask the training to write its state and end; Ray ends what has not ended within the grace.

    Ray's own `stop_job` leaves three seconds to those that it ends.
    """
    with suppress(UserError, OSError):
        write_atomically(work.folder / CANCELLED, b"the run was cancelled")
    if not jobs.wait(job, grace) and not jobs.stop(job, STOP_PATIENCE):
        _log.warning("The job %s may still be at work on Ray at %s; `ray job stop` ends it.", job, jobs.address)


@dataclass
class _Followed:
    """A job as its run sees it."""

    jobs: RayJobs
    job: str
    work: Work
    _heard: float = field(default_factory=time.monotonic)
    _done: dict[str, float] = field(default_factory=dict)

    def is_going(self) -> bool:
        """Raises TrainingDied where the cluster has given no answer for too long."""
        if not self._is_due("look", _LOOK):
            return True
        try:
            status = self.jobs.status(self.job)
        except Unreachable as error:
            if time.monotonic() - self._heard > CLUSTER_PATIENCE:
                raise TrainingDied(
                    f"Ray at {self.jobs.address} has given no answer for {CLUSTER_PATIENCE:.0f} seconds ({error}); "
                    f"where its job {self.job} is still at work, the next try follows it further."
                ) from None
            return True
        self._heard = time.monotonic()
        return status in GOING

    def tend(self) -> None:
        """Show the job that somebody follows it, and keep its log where people look for it."""
        if self._is_due("beat", _BEAT):
            with suppress(UserError, OSError):
                write_atomically(self.work.folder / FOLLOWED, f"{os.getpid()} {time.time()}".encode())
        if self._is_due("log", _LOG):
            _copy_log(self.jobs, self.job, self.work)

    def _is_due(self, what: str, every: float) -> bool:
        if time.monotonic() - self._done.get(what, -math.inf) < every:
            return False
        self._done[what] = time.monotonic()
        return True


def _follow(followed: _Followed, progress: OnStep) -> None:
    """Pass progress on as it is written, until the job ends."""
    heard = Heard(followed.work.folder / MESSAGES, progress)
    running = True
    while running:
        running = followed.is_going()
        followed.tend()
        heard.pass_on()
        if running:
            time.sleep(_POLL)
    heard.end()


def _copy_log(jobs: RayJobs, job: str, work: Work) -> None:
    if text := jobs.log(job):
        with suppress(OSError):
            (work.folder / TRAINING_LOG).write_text(text, encoding="utf-8", errors="replace")


def _without_outcome(title: str, jobs: RayJobs, job: str, work: Work) -> Exception:
    """Why a job has ended without saying what became of its training."""
    code = jobs.exit_code(job)
    if code == NO_FOLDER:
        return UserError(
            f"The head node of Ray at {jobs.address} does not see {work.folder}, where {title} works; put the loop on "
            "a disk that all nodes mount at the same place."
        )
    reason = f"exit code {code}" if code is not None else _status(jobs, job)
    message = "\n".join([f"The Ray job {job} of {title} ended ({reason}).", *tail_of_log(work)])
    return TrainingFailed(message) if code == GAVE_UP else TrainingDied(message)


def _status(jobs: RayJobs, job: str) -> str:
    try:
        status = jobs.status(job)
    except Unreachable:
        return "Ray gives no answer"
    return "Ray does not know it any more" if status == NO_SUCH_JOB else status.lower()


class SignsOfRun:
    """The signs of life of a training's run. Their change counts: clocks of two hosts differ."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._last, self._at = b"", time.monotonic()

    def ended(self) -> str:
        """Why to stop; empty while somebody follows."""
        try:
            sign = self._path.read_bytes()
        except OSError:
            sign = b""
        if sign != self._last:
            self._last, self._at = sign, time.monotonic()
            return ""
        gone = time.monotonic() - self._at
        return f"no run has followed this training for {gone:.0f} seconds" if gone > self._seconds else ""


def leave(sentence: str, code: int) -> NoReturn:
    """End a job's driver: ``sentence`` is its last word, and ``code`` tells the run."""
    sys.stderr.write(f"{sentence}\n")
    sys.exit(code)
