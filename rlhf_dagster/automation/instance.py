"""The Dagster instance of a loop's folder."""

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from yaml import YAMLError

from rlhf_dagster.automation.declared import DeclaredLoop
from rlhf_dagster.automation.execution import REPOSITORY
from rlhf_dagster.automation.own_runs import ALIVE, alive_runs
from rlhf_dagster.common.processes import is_alive, is_gone, other_host, process_tag
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import GPU_POOL

CODE_LOCATION = "rlhf_dagster"
"""The code location's name in every workspace.yaml; runs made here belong to it in the UI."""
SERVED_LOOP = "RLHF_SERVED_LOOP"
"""Environment variable by which `rlhf ui` names the loop that it serves. Dagster takes variables from a file `.env` in
the working folder, which may name another loop in RLHF_LOOP."""
# Tags under `.dagster/` are not shown.
LOCATION_TAG = ".dagster/repository"
PROCESS_TAG = ".dagster/rlhf_process"
_DAMAGES = (dg.DagsterError, SQLAlchemyError, sqlite3.Error, YAMLError, ValueError)
"""What Dagster raises over records, or a dagster.yaml, that are damaged."""
_NOT_IN_ADDRESSES = re.compile(r"\?|%[0-9A-Fa-f]{2}")
"""Dagster puts the folder's name into the addresses of its databases as it is, where these mean something."""
MAX_RETRIES_TAG = "dagster/max_retries"


def dagster_home(root: Path) -> Path:
    return root / "dagster"


def prepare_home(root: Path) -> Path:
    """``root/dagster`` with our instance config, unless there is one already.

    Raises UserError where the folder cannot be written, or has a name that Dagster would take for another one.
    """
    home = dagster_home(root)
    if _NOT_IN_ADDRESSES.search(str(home.absolute())):
        raise UserError(
            f"{root}: Dagster cannot keep records in a folder whose name holds `?`, or `%` before two hex digits; "
            "rename it, or choose another folder."
        )
    target = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            with resources.as_file(resources.files("rlhf_dagster") / "templates" / "dagster.yaml") as template:
                shutil.copyfile(template, target)
    except OSError as error:
        raise UserError(f"{root}: cannot write there ({error.strerror}); choose another folder.") from None
    return home


def open_instance(loop: LoopFolder) -> dg.DagsterInstance:
    """The instance that holds a loop's runs: its own, or the configured one where a project declares the loop."""
    return _configured_instance() if isinstance(loop, DeclaredLoop) else _own_instance(loop.root)


def _configured_instance() -> dg.DagsterInstance:
    """The instance of `$DAGSTER_HOME`, as it is: its pools and its dead runs are its owners'."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise UserError(
            "DAGSTER_HOME is not set; a project's loop has its runs on the instance of that folder, which "
            "`dg dev` must be given too."
        )
    with readable_records(Path(home)):
        return dg.DagsterInstance.get()


def _own_instance(root: Path) -> dg.DagsterInstance:
    """The loop's own instance, with the GPU pool's limit set and runs of dead processes closed."""
    home = prepare_home(root)
    os.environ["DAGSTER_HOME"] = str(home)
    with readable_records(home):
        instance = dg.DagsterInstance.get()
        storage = instance.event_log_storage
        if GPU_POOL not in {limit.name for limit in storage.get_pool_limits()}:
            storage.set_concurrency_slots(GPU_POOL, 1)
        close_dead_runs(instance)
    return instance


@contextmanager
def readable_records(home: Path) -> Iterator[None]:
    """Turn what Dagster raises over records that are damaged or away, or a wrong dagster.yaml, into one sentence."""
    try:
        yield
    except dg.DagsterInvalidConfigError as error:
        why = error.errors[0].message.split("\n")[0].rstrip(".")
        raise UserError(f"{home / 'dagster.yaml'} cannot be followed: {why}; mend it, or the environment.") from None
    except Exception as error:
        if why := _lost_connection(error):
            raise UserError(
                f"{home}: the database of Dagster's records does not answer ({why}); start it, or mend its address in "
                "dagster.yaml or in the environment."
            ) from None
        if not isinstance(error, _DAMAGES):
            raise
        raise UserError(
            f"{home}: Dagster's records cannot be read ({first_line(error)}); bring the folder back from a backup. "
            "Tables, models and decisions are not in it."
        ) from None


def _lost_connection(error: BaseException | None) -> str:
    """What a database said that cannot be reached; empty where that is not why. A file can be reached."""
    while error is not None:
        if isinstance(error, OperationalError) and not isinstance(error.orig, sqlite3.Error):
            return first_line(error.orig or error)
        error = error.__cause__ or error.__context__
    return ""


def code_location(loop: LoopFolder) -> str:
    """The code location whose jobs, assets and timeline list a loop's runs."""
    return loop.code_location if isinstance(loop, DeclaredLoop) else CODE_LOCATION


def run_tags(loop: LoopFolder) -> dict[str, str]:
    """Which process executes a run, and where it is listed. Whoever has typed its command takes it up again."""
    where = f"{REPOSITORY}@{code_location(loop)}"
    return {PROCESS_TAG: process_tag(os.getpid()), LOCATION_TAG: where, MAX_RETRIES_TAG: "0"}


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Fail the runs whose process is gone and free their places in the pools; returns their ids.

    Runs of other hosts are theirs to close.
    """
    closed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=ALIVE)):
        tag = run.tags.get(PROCESS_TAG)
        if tag and is_gone(tag):
            instance.report_run_failed(run, "The process that executed this run is gone.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            closed.append(run.run_id)
    return closed


def require_idle(instance: dg.DagsterInstance, loop: LoopFolder) -> None:
    """Raise UserError while another process runs a job of this loop, or holds the pool of its steps.

    Two runs of one stage would write to one work folder, and a held pool would be waited for without a word.
    """
    for run in (record.dagster_run for record in alive_runs(instance, loop)):
        tag = run.tags.get(PROCESS_TAG, "")
        if not tag and isinstance(loop, DeclaredLoop) and run.status != dg.DagsterRunStatus.QUEUED:
            raise UserError(f"Run {run.run_id[:8]} of {run.job_name} is at work on this loop: wait until it ends.")
        if tag and (host := other_host(tag)):
            raise UserError(
                f"Run {run.run_id[:8]} of {run.job_name} is at work on this loop on {host}: wait until it ends, or, if "
                "that host is gone, terminate the run in the UI (Runs)."
            )
        if tag and is_alive(tag) and not tag.startswith(f"{os.getpid()}:"):
            pid = tag.split(":")[0]
            raise UserError(f"Process {pid} is running {run.job_name} on this loop: wait until it ends, or stop it.")
    holders = instance.event_log_storage.get_concurrency_info(loop.names.pool).active_run_ids
    if holders:
        run_id = sorted(holders)[0]
        raise UserError(
            f"Run {run_id[:8]} holds the `{loop.names.pool}` pool: wait until it ends, or, if its process is gone, "
            "terminate it in the UI (Runs) or free the pool there (Deployment > Concurrency)."
        )
