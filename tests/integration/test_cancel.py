"""Cancelling PPO in the UI, and killing what runs it: nothing is left behind, and a retry goes on."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.dagster_api import DagsterApi, wait_until
from integration.ui import serving
from loops import ROUND, copy_loop

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.processes import processes_with
from rlhf_dagster.compute.exchange import MESSAGES

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="Processes are looked up in /proc."),
]
WORKER, GUARD, GRANDCHILD = "rlhf_dagster.compute.worker", "rlhf_dagster.compute.guard", "grandchild-of"
GRACE = 3.0
LONG = {"updates": 20_000}
SITE = f"""
import subprocess, sys
if any("{WORKER}" in argument for argument in sys.orig_argv):
    code = "import time; time.sleep(3600)"
    subprocess.Popen([sys.executable, "-S", "-c", code, "{GRANDCHILD}", FOLDER], start_new_session=True)
"""


@dataclass
class Training:
    """PPO at work for a loop that is served."""

    runner: LoopRunner
    api: DagsterApi
    run: str

    @property
    def work(self) -> Path:
        return self.runner.loop.root / "work" / f"ppo-{ROUND}"

    def step(self) -> int:
        """The last update that was reported."""
        return self.steps()[-1] if self.steps() else 0

    def steps(self) -> list[int]:
        """The updates that the training process has reported, without warnings and a half-written line."""
        path = self.work / MESSAGES
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [message["step"] for line in lines if "step" in (message := json.loads(line))]

    def processes(self, sign: str) -> list[int]:
        """Processes of this loop's training."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if sign in command and str(self.runner.loop.root) in command:
                found.append(int(path.parent.name))
        return found

    def is_gone(self) -> bool:
        return not self.processes(WORKER) and not self.processes(GRANDCHILD)

    def states(self) -> list[Path]:
        return list((self.work / "state").glob("state-*"))


def look_often(root: Path) -> None:
    """Let Dagster's daemon see at once that a run has lost its process, instead of after up to fifteen seconds."""
    path = root / "dagster" / "dagster.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings["run_monitoring"] |= {"poll_interval_seconds": 1, "free_slots_after_run_end_seconds": 1}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")


@pytest.fixture
def train(stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Training]]:
    with pytest.MonkeyPatch.context() as patch:
        servers = []

        def start(processes: int = 1, grandchild: bool = False) -> Training:
            root = tmp_path / "loop"
            compute = {
                "threads": 1,
                "launch": "process",
                "processes": processes,
                "checkpoint_seconds": 0,
                "grace_seconds": GRACE,
            }
            runner = copy_loop(stages.unjudged, root, ppo=LONG, compute=compute)
            if grandchild:
                (tmp_path / "site").mkdir()
                (tmp_path / "site" / "sitecustomize.py").write_text(SITE.replace("FOLDER", repr(str(root))))
                patch.setenv("PYTHONPATH", str(tmp_path / "site"))
            look_often(root)
            server = serving(root)
            api = DagsterApi(server.__enter__().address)
            servers.append(server)
            training = Training(runner, api, api.launch("train_round", ROUND, "ppo_policy"))
            wait_until(lambda: training.step() >= 3 or api.status(training.run) in ("FAILURE", "CANCELED"))
            assert training.step() >= 3, (training.work / "training.log").read_text()
            return training

        yield start
        for server in servers:
            server.__exit__(None, None, None)


# What ends a training's processes is tested by itself (tests/compute/test_guard.py), with each of these.
KINDS = ("plain", "with a grandchild", "deaf")


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_cancelled_in_the_ui_everything_is_gone_and_a_retry_goes_on(kind: str, train: Callable[..., Training]) -> None:
    training = train(grandchild=kind == "with a grandchild")
    if kind == "with a grandchild":
        assert training.processes(GRANDCHILD)
    if kind == "deaf":
        # A process at a standstill hears no signal and reads no file.
        for pid in set(training.processes(WORKER)) - set(training.processes(GUARD)):
            os.kill(pid, signal.SIGSTOP)
    _cancel_and_retry(training, training.run)


@pytest.mark.long
def test_killed_it_goes_on_in_the_same_run_and_in_another_and_cancelled_it_waits_for_a_retry(
    train: Callable[..., Training],
) -> None:
    """Two ranks: what is killed is one of them, then what runs both; and both are cancelled."""
    training = train(processes=2)
    _kill_training(training)
    os.kill(processes_with("execute_run", training.run)[0], signal.SIGKILL)
    wait_until(training.is_gone)
    reached = int(training.states()[0].name.split("-")[1])
    assert training.api.wait(training.run) == "FAILURE"
    wait_until(lambda: training.processes(WORKER) and training.step() > reached)
    newest = training.runner.instance.get_runs(limit=1)[0]
    assert newest.parent_run_id == training.run
    _cancel_and_retry(training, newest.run_id)


def _cancel_and_retry(training: Training, run: str) -> None:
    """Everything of the run is gone, and another one goes on from the state that it has kept."""
    training.api.terminate(run)
    assert training.api.wait(run) == "CANCELED"
    assert training.is_gone()
    assert len(training.states()) == 1
    reached = int(training.states()[0].name.split("-")[1])
    assert reached >= 3
    (training.work / MESSAGES).unlink()
    again = training.api.launch("train_round", ROUND, "ppo_policy")
    wait_until(lambda: training.step() > 0)
    assert training.steps()[0] == reached + 1
    training.api.terminate(again)
    assert training.api.wait(again) == "CANCELED"
    assert training.is_gone()
    assert training.runner.instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0


def _kill_training(training: Training) -> None:
    """It goes on in another process, of the same run."""
    before = training.processes(WORKER)
    reached = training.step()
    os.kill(max(before), signal.SIGKILL)
    wait_until(lambda: training.processes(WORKER) and not set(training.processes(WORKER)) & set(before))
    wait_until(lambda: training.step() > reached)
    assert training.steps()[0] >= reached
    assert training.api.status(training.run) == "STARTED"
