"""`compute.launch: ray`: a training as a job of a Ray cluster, whose processes are those of Ray Train.

The run and the job speak by the files of the work folder, which every node of the cluster must see. ``owner.json`` says
which job the folder is of. A run that was killed leaves its job at work; the next try of the same training follows it
further, and one of another training ends it. A job that nobody follows ends by itself, with its state written.
"""

import logging
import math
import os
import shlex
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlhf_dagster.common.child_processes import SAFE_PATH
from rlhf_dagster.common.files import make_folder, write_atomically, writing
from rlhf_dagster.compute.exchange import (
    FOLLOWED,
    MESSAGES,
    OUTCOME,
    OWNER_RECORD,
    REQUEST,
    Heard,
    Owner,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.launchers.base import Launcher
from rlhf_dagster.compute.launchers.ray_job import GAVE_UP, NO_FOLDER
from rlhf_dagster.compute.launchers.ray_jobs import GOING, NO_SUCH_JOB, SUCCEEDED, RayJobs, Unreachable, require_ray
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
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.training.runtime.resuming import fingerprint
from rlhf_dagster.training.specs import OnStep, Spec, spec_to_json

CLUSTER_PATIENCE = 300.0
"""Seconds for which the cluster may give no answer before its training is taken for lost."""
STOP_PATIENCE = 30.0
"""Seconds that Ray has to end a job that did not end within its grace."""
_POLL, _LOOK, _BEAT, _LOG = 0.2, 2.0, 5.0, 10.0
"""Seconds between looks at progress and at the job, signs of life to the job, and copies of its log."""
_log = logging.getLogger("rlhf_dagster.training")


def _prepare(spec: Spec, work: Work) -> Spec:
    """The folder is left as it is: a job may be at work in it. Memory is the nodes', and asked there."""
    require_ray()
    return spec


def _train(stage: str, spec: Spec, work: Work, progress: OnStep, lock: int) -> Trained:
    jobs = RayJobs.at(spec.compute.ray.address)
    identity = identity_of(spec)
    job = _taken_over(jobs, work, identity, spec.compute.grace_seconds) or _submitted(jobs, stage, spec, work, identity)
    with _ended_with_run(jobs, job, work, spec.compute.grace_seconds):
        _follow(_Followed(jobs, job, work), progress)
    _copy_log(jobs, job, work)
    return _outcome(stage, jobs, job, work)


def identity_of(spec: Spec) -> str:
    """Of what a job trains, and with which compute settings: a next try follows one that has the same."""
    return content_hash("ray", fingerprint(spec), spec.compute.model_dump_json())


def _taken_over(jobs: RayJobs, work: Work, identity: str, grace: float) -> str | None:
    """The job of an earlier try whose run is gone, where it is of the same training; others are ended."""
    owner = _owner(work)
    if owner is None:
        return None
    try:
        status = jobs.status(owner.job)
    except Unreachable:
        raise TrainingDied(f"Ray at {jobs.address} gives no answer about the job {owner.job}.") from None
    wanted = owner.identity == identity and not (work.folder / CANCELLED).exists()
    if wanted and (status in GOING or (status == SUCCEEDED and _is_trained(work))):
        _log.warning("An earlier run has left the job %s on Ray; its training goes on here.", owner.job)
        return owner.job
    if status in GOING:
        _end(jobs, owner.job, work, grace)
    return None


def _is_trained(work: Work) -> bool:
    try:
        return bool(read_record(TrainingOutcome, work.folder / OUTCOME).result)
    except (OSError, UserError):
        return False


def _owner(work: Work) -> Owner | None:
    try:
        return read_record(Owner, work.folder / OWNER_RECORD)
    except (OSError, Damaged):
        return None


def _submitted(jobs: RayJobs, stage: str, spec: Spec, work: Work, identity: str) -> str:
    """Start a job. From here on an earlier one of this folder, wherever it is, can keep nothing more."""
    work.prepare()
    job, compute = f"rlhf-{work.folder.name}-{uuid.uuid4().hex[:12]}", spec.compute
    request = Request(
        stage,
        spec_to_json(_with_own_inputs(spec, work.folder / "inputs")),
        str(work.state),
        compute.checkpoint_seconds,
        str(work.folder / CANCELLED),
        work.store.address,
        work.copies.folder if work.copies else "",
    )
    write_record(work.folder / OWNER_RECORD, Owner(job, identity))
    write_record(work.folder / REQUEST, request)
    command = ["python", "-P", "-m", "rlhf_dagster.compute.launchers.ray_job", str(work.folder), job]
    jobs.submit(job, shlex.join(command), _environment(compute), {"stage": stage, "loop": work.project})
    return job


def _with_own_inputs(spec: Spec, folder: Path) -> Spec:
    """``spec`` with copies of its tables, which the job reads again when it is restarted, with this run or without."""
    files = {name: value for name, value in vars(spec).items() if isinstance(value, Path) and value.is_file()}
    return replace(spec, **{name: _copied(path, folder / name) for name, path in files.items()})


def _copied(file: Path, folder: Path) -> Path:
    with writing(folder):
        make_folder(folder)
        shutil.copyfile(file, folder / file.name)
    return folder / file.name


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


def _outcome(stage: str, jobs: RayJobs, job: str, work: Work) -> Trained:
    path = work.folder / OUTCOME
    if not path.exists():
        raise _without_outcome(stage, jobs, job, work)
    try:
        trained = trained_by(read_record(TrainingOutcome, path))
    except Damaged as damaged:
        raise Damaged(f"{damaged} Train {stage} again: it goes on from its last state.") from None
    shutil.rmtree(work.output, ignore_errors=True)
    trained.result.folder.rename(work.output)
    return replace(trained, result=replace(trained.result, folder=work.output))


def _without_outcome(stage: str, jobs: RayJobs, job: str, work: Work) -> Exception:
    """Why a job has ended without saying what became of its training."""
    code = jobs.exit_code(job)
    if code == NO_FOLDER:
        return UserError(
            f"The head node of Ray at {jobs.address} does not see {work.folder}, where {stage} trains; put the loop on "
            "a disk that all nodes mount at the same place."
        )
    reason = f"exit code {code}" if code is not None else _status(jobs, job)
    message = "\n".join([f"The Ray job {job} of {stage} ended ({reason}).", *tail_of_log(work)])
    return TrainingFailed(message) if code == GAVE_UP else TrainingDied(message)


def _status(jobs: RayJobs, job: str) -> str:
    try:
        status = jobs.status(job)
    except Unreachable:
        return "Ray gives no answer"
    return "Ray does not know it any more" if status == NO_SUCH_JOB else status.lower()


ON_RAY = Launcher(_prepare, _train)
