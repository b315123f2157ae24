"""Runs are processes that depend on nobody, and whose end is noticed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus
from loops import ROUND

from rlhf_dagster.assets.define import stage_progress
from rlhf_dagster.automation.instance import PROCESS_TAG
from rlhf_dagster.automation.launcher import ProcessRunLauncher
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.processes import process_tag


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, preexec_fn=_heed_interrupts) as process:  # noqa: PLW1509  # no threads here
        yield process
        process.kill()


def _heed_interrupts() -> None:
    """Also where the tests run in the background, with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(runner: LoopRunner, tags: dict[str, str]) -> dg.DagsterRun:
    job = runner.definitions.resolve_job_def("train_round")
    return runner.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)


def test_the_instance_uses_it(finished) -> None:
    assert isinstance(finished.instance.run_launcher, ProcessRunLauncher)
    assert finished.instance.run_launcher.supports_check_run_worker_health
    assert finished.instance.run_monitoring_enabled


def test_a_run_is_healthy_while_its_process_lives(stages, copy_of, worker) -> None:
    runner = copy_of(stages.prepared)
    run = started(runner, {PROCESS_TAG: process_tag(worker.pid)})
    launcher = runner.instance.run_launcher
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    worker.kill()
    worker.wait()
    health = launcher.check_run_worker_health(run)
    assert (health.status, health.msg) == (WorkerStatus.FAILED, "The process that executed this run is gone.")


def test_a_cancelled_run_is_asked_to_end(stages, copy_of, worker) -> None:
    runner = copy_of(stages.prepared)
    run = started(runner, {PROCESS_TAG: process_tag(worker.pid)})
    assert runner.instance.run_launcher.terminate(run.run_id)
    assert worker.wait() in (-signal.SIGINT, 1, 130)  # Python's own endings by an interrupt
    assert runner.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELING


def test_cancelling_a_run_whose_process_is_gone_ends_it(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    run = started(runner, {PROCESS_TAG: f"{os.getpid()}:1"})
    assert runner.instance.run_launcher.terminate(run.run_id)
    assert runner.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED
    assert not runner.instance.run_launcher.terminate(run.run_id)


def test_a_run_on_another_host_is_asked_by_its_status_alone(stages, copy_of, worker) -> None:
    """The same pid here is somebody else's process."""
    runner = copy_of(stages.prepared)
    run = started(runner, {PROCESS_TAG: process_tag(worker.pid).partition("@")[0] + "@gpu-7"})
    launcher = runner.instance.run_launcher
    health = launcher.check_run_worker_health(run)
    assert (health.status, health.msg) == (WorkerStatus.RUNNING, "The run is on gpu-7, where its process can be seen.")
    assert launcher.terminate(run.run_id)
    assert runner.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELING
    assert worker.poll() is None


@pytest.mark.parametrize("ended", [dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.FAILURE])
def test_a_run_that_others_have_ended_ends_when_it_says_how_far_it_is(ended: dg.DagsterRunStatus) -> None:
    """A host that was cut off is taken for dead, and its run may have been taken up again elsewhere."""
    said = []

    @dg.asset
    def training(context: dg.AssetExecutionContext) -> None:
        progress = stage_progress(context)
        progress.log("step 1 of 2")
        said.append("step 1 of 2")
        report = {
            dg.DagsterRunStatus.CANCELING: context.instance.report_run_canceling,
            dg.DagsterRunStatus.FAILURE: context.instance.report_run_failed,
        }
        report[ended](context.run)
        progress.log("step 2 of 2")
        said.append("step 2 of 2")

    with dg.instance_for_test() as instance, pytest.raises(dg.DagsterExecutionInterruptedError):
        dg.materialize([training], instance=instance)
    assert said == ["step 1 of 2"]


def test_a_process_that_was_not_noted_is_found_by_its_command(stages, copy_of) -> None:
    """The daemon may be killed between starting a run's process and writing down its pid."""
    runner = copy_of(stages.prepared)
    run = started(runner, {"dagster/partition": ROUND})
    launcher = runner.instance.run_launcher
    assert launcher.check_run_worker_health(run).status == WorkerStatus.FAILED
    command = [sys.executable, "-c", "input()", "execute_run", run.run_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes():
            time.sleep(0.01)  # the system fills it in a moment after the process has begun
        assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
        process.kill()
