"""Running what of a plan is missing, and measuring a claim on what it has become."""

import fcntl
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

LOCK = ".replicate.lock"
_PATIENCE = 15.0
"""Seconds to wait for workers of a call that was killed to end."""


def run_plan(plan: Plan, jobs: int, cost: Cost, listener: WorkListener) -> dict[str, str]:
    """Run what is not done in ``jobs`` processes; returns why works failed, by the names of their folders."""
    works = plan.unfinished()
    if not works:
        return {}
    with only_one(plan.out) as lock:
        pool = Pool(min(jobs, len(works)), plan.out, (lock,))
        try:
            return Schedule(works, pool, cost, listener).run()
        finally:
            pool.close()


@contextmanager
def only_one(out: Path) -> Iterator[int]:
    """Hold the folder's lock, and give its descriptor; raises UserError while another call works there."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        file = (out / LOCK).open("a")
    with file:
        end = time.monotonic() + _PATIENCE
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
