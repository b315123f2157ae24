"""A team's Dagster deployment on this machine: its project, its instance, and the services that it keeps running."""

import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import dagster as dg
import yaml
from label_studio import free_port
from psutil import Process

INSTANCE: dict[str, Any] = {
    "concurrency": {"pools": {"granularity": "op", "default_limit": 1}},
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
}
"""What docs/dagster.md asks of an instance, and nothing of rlhf_dagster's."""
GRACE = 30
"""Seconds that a service has to stop by itself."""
PACKAGE = Path(__file__).parents[1]


@dataclass
class TeamAtWork:
    """Daemon and web server of a project, on an instance of their own in ``home``."""

    project: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def configure(self, **sections: Any) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE | sections), encoding="utf-8")

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def module(self) -> str:
        return f"{self.project.name}.definitions"

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the team's, in its project."""
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        return subprocess.run(
            command, env=self._environment(), cwd=self.project, capture_output=True, text=True, check=False
        )

    def start_daemon(self) -> None:
        self._start("dagster-daemon", "run", "-m", self.module)

    def start_web(self) -> None:
        self._start("dagster-webserver", "-m", self.module, "-h", "127.0.0.1", "-p", str(self.port))
        while not _answers(f"{self.address}/server_info"):
            self.require_alive()
            time.sleep(0.5)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home)) as found:
            yield found

    def wait_until(self, condition: Callable[[dg.DagsterInstance], object]) -> None:
        """Look once a second, for as long as the services are alive."""
        with self.instance() as instance:
            while not condition(instance):
                self.require_alive()
                time.sleep(1)

    def require_alive(self) -> None:
        for process in self.processes:
            assert process.poll() is None, f"{process.args} ended:\n{self.log()[-5000:]}"

    def log(self) -> str:
        return (self.home / "services.log").read_text(encoding="utf-8", errors="replace")

    def ticks(self) -> dict[str, list[Any]]:
        """What each schedule and sensor has done, by its name: Dagster's own records, the newest first."""
        found = defaultdict(list)
        with self.instance() as instance:
            for state in instance.all_instigator_state():
                ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
                found[state.instigator_name] += [tick for tick in ticks if tick.end_timestamp]
        return dict(found)

    def cpu_seconds(self) -> float:
        """What the services and their children that are there have spent."""
        services = [Process(process.pid) for process in self.processes]
        alive = [*services, *(child for service in services for child in service.children(recursive=True))]
        return sum(times.user + times.system for times in (process.cpu_times() for process in alive))

    def stop(self) -> None:
        """Ask the services to end, and kill what is left of them."""
        for process in self.processes:
            process.send_signal(signal.SIGINT)
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, program: str, *arguments: str) -> None:
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        with (self.home / "services.log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    command,
                    env=self._environment(),
                    cwd=self.project,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def _environment(self) -> dict[str, str]:
        searched = os.pathsep.join([str(self.project), str(PACKAGE)])
        return os.environ | {"DAGSTER_HOME": str(self.home), "PYTHONPATH": searched} | self.environment


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=10):
            return True
    except OSError:
        return False
