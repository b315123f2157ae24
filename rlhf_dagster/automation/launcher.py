"""Launches each run as a process of its own on this host, and can tell whether that process is still alive.

Dagster's default launcher starts runs inside the code server and does not watch them: a run whose process is killed
stays "started", with its place in the pools, and a code server that is killed takes the means to cancel its runs with
it. Here a run depends on neither code server nor daemon, and run monitoring sees at once that its process is gone.

Where hosts share an instance, each looks at processes of its own alone: of a run elsewhere it says that it runs, and
leaves its end to the run, which looks at its status whenever it says how far it is.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass
from dagster._serdes.config_class import ConfigurableClassData

from rlhf_dagster.automation.instance import PROCESS_TAG
from rlhf_dagster.common.processes import is_alive, other_host, process_tag, processes_with
from rlhf_dagster.errors import UserError

LOGS = "run_logs"


class ProcessRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Runs as processes of this host, in sessions of their own."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._children: list[subprocess.Popen[bytes]] = []
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        run, origin = context.dagster_run, context.job_code_origin
        if origin is None:
            raise dg.DagsterInvariantViolationError(f"Run {run.run_id} has no code to run; reload the code location.")
        self._reap()
        arguments = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()).get_command_args()
        with self._log(run.run_id).open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._children.append(process)
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: process_tag(process.pid)})
        self._instance.report_engine_event(f"Started the process of the run (pid {process.pid}).", run)

    def terminate(self, run_id: str) -> bool:
        """Ask the run's process to end; it ends its training first, after a checkpoint."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if host := _host(run):
            self._instance.report_engine_event(f"The run is on {host}; it ends when it next says how far it is.", run)
            return True
        process = _process(run)
        if process is None:
            self._instance.report_run_canceled(run, "The process of the run was gone already.")
        else:
            os.kill(process, signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        self._reap()
        if host := _host(run):
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"The run is on {host}, where its process can be seen.")
        if _process(run) is not None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, "The process that executed this run is gone.")

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """The end of what the process printed besides Dagster's events."""
        log = self._log(run.run_id)
        return log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else None

    def dispose(self) -> None:
        self._reap()

    def _reap(self) -> None:
        """Collect ended children, which would count as alive otherwise."""
        self._children = [child for child in self._children if child.poll() is None]

    def _log(self, run_id: str) -> Path:
        folder = Path(self._instance.root_directory, LOGS)
        folder.mkdir(exist_ok=True)
        return folder / f"{run_id}.log"


def require_unwatched(instance: dg.DagsterInstance) -> None:
    """Raise UserError where the instance would take a run of this process for dead.

    Run monitoring asks the launcher, and other launchers know the containers and jobs alone that they have started.
    """
    launcher = instance.run_launcher
    own = isinstance(launcher, ProcessRunLauncher)
    if instance.run_monitoring_enabled and launcher.supports_check_run_worker_health and not own:
        raise UserError(
            f"This instance watches its runs by {type(launcher).__name__}, which would take one in this process for "
            "dead: launch the job in the UI, or by `dagster job launch`."
        )


def _host(run: dg.DagsterRun) -> str:
    """The host that a run is on, where it is not this one."""
    return other_host(run.tags.get(PROCESS_TAG, ""))


def _process(run: dg.DagsterRun) -> int | None:
    """Pid of the run's process if it is alive; found by its command line where the launcher died before noting it."""
    tag = run.tags.get(PROCESS_TAG, "")
    if tag:
        return int(tag.split(":")[0]) if is_alive(tag) else None
    return next(iter(processes_with("execute_run", run.run_id)), None)
