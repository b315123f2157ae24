"""Running what of a plan is missing, and measuring a claim on what it has become."""

import fcntl
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rlhf_dagster.common.files import writing
from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim, Measured, Size
from rlhf_dagster.replication.results import FinishedVariants
from rlhf_dagster.replication.running.plan import Plan
from rlhf_dagster.replication.running.pool import Pool
from rlhf_dagster.replication.running.schedule import Cost, Schedule, WorkListener

LOCK_FILE = ".replicate.lock"
WAIT_FOR_WORKERS = 15.0
"""Seconds to wait for the workers of a call that was killed to end."""


def run_plan(
    plan: Plan, jobs: int, cost: Cost, listener: WorkListener, patience: float | None = WAIT_FOR_WORKERS
) -> dict[str, str]:
    """Run what is not done in ``jobs`` processes; returns why works failed, by the names of their folders.

    Raises UserError where another call works in the folder, and has not ended after ``patience`` seconds (None: it is
    waited for).
    """
    if not plan.unfinished():
        return {}
    with only_one(plan.out, patience) as lock:
        works = plan.unfinished()  # what another call has done meanwhile is done
        pool = Pool(jobs, plan.out, (lock,))
        try:
            return Schedule(works, pool, cost, listener).run()
        finally:
            pool.close()


@contextmanager
def only_one(out: Path, patience: float | None) -> Iterator[int]:
    """Hold the folder's lock, and give its descriptor."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK_FILE).open("a")
    with file:
        end = math.inf if patience is None else time.monotonic() + patience
        while not _locked(file.fileno()):
            if time.monotonic() > end:
                raise UserError(f"{out}: another `rlhf replicate` works here; wait until it ends, or stop it.")
            time.sleep(0.2)
        yield file.fileno()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def measure_cell(claim: Claim, size: Size, seed: int, plan: Plan, failures: Mapping[str, str]) -> Measured:
    """The figures of one claim and one seed; raises UserError where one of its variants failed."""
    works = plan.cells[claim.name, seed]
    for work in works:
        if why := failures.get(work.folder.name):
            raise UserError(f"{work.title}: {why}")
    folders = {work.loop.identity: work.folder for work in works}
    return claim.measure(FinishedVariants(seed, folders), size)


def default_jobs() -> int:
    """As many processes as this one may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
