"""A Ray cluster of one node for the tests, on this machine's loopback and with a token; and one that is none."""

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from label_studio import free_port

from rlhf_dagster.compute.launchers.child_process import guarded

REPOSITORY = Path(__file__).parents[1]


def require_ray_installed() -> None:
    """Skip where Ray is not installed, but fail where CI promises it."""
    if find_spec("ray") is not None:
        return
    sentence = "These tests need Ray; `pip install 'rlhf-dagster[ray]'` installs it."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@dataclass(frozen=True)
class RayCluster:
    """A running cluster; ``folder`` has its token and its logs."""

    address: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What lets a client in."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.folder / "token")}

    def answer(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and text of a page of the dashboard."""
        request = urllib.request.Request(f"{self.address}{path}", headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text()


@contextmanager
def ray_cluster(cpus: int, environment: Mapping[str, str]) -> Iterator[RayCluster]:
    """A head node with so many CPUs, whose processes have ``environment`` as well."""
    # Not in pytest's folder: the paths of Ray's sockets have to be short.
    with TemporaryDirectory(prefix="rlhf-ray-", ignore_cleanup_errors=True) as name:
        folder, port, dashboard = Path(name), free_port(), free_port()
        cluster = RayCluster(f"http://127.0.0.1:{dashboard}", folder)
        token = os.open(folder / "token", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(token, secrets.token_hex(32).encode())
        os.close(token)
        scripts = Path(sys.executable).parent
        given = (
            os.environ
            | cluster.environment
            | {
                "PATH": f"{scripts}:{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_memory_monitor_refresh_ms": "0",
                "OMP_NUM_THREADS": "1",
                **environment,
            }
        )
        command = [
            *(str(scripts / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1"),
            *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"),
            *(f"--num-cpus={cpus}", "--object-store-memory=80000000", f"--temp-dir={folder}"),
        ]
        with (folder / "start.log").open("wb") as log, guarded(command, 10.0, log, environment=given) as guard:
            _wait_until_up(cluster, guard)
            yield cluster


def let_in(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process's clients let in.

    Ray keeps what its variables were when a process imported it first, and is told to read them again.
    """
    from ray._private.authentication_test_utils import reset_auth_token_state

    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    reset_auth_token_state()


def _wait_until_up(cluster: RayCluster, guard: "subprocess.Popen[bytes]") -> None:
    token = {"Authorization": f"Bearer {cluster.token}"}
    while True:
        assert guard.poll() is None, (cluster.folder / "start.log").read_text()
        try:
            if cluster.answer("/api/jobs/", token)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.3)


@dataclass
class FakeRay:
    """A cluster whose jobs are done by functions: each is called at every look at its job, and says its status."""

    address: str = "http://ray"
    does: Callable[[str], str] = lambda job: "RUNNING"
    code: int | None = 0
    submitted: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)

    def submit(self, job: str, command: str, environment: dict[str, str], about: dict[str, str]) -> None:
        self.submitted.append(job)
        self.commands.append(command)
        self.environment = environment

    def status(self, job: str) -> str:
        return "STOPPED" if job in self.stopped else self.does(job)

    def wait(self, job: str, patience: float, every: float = 0.0) -> bool:
        return self.status(job) not in ("PENDING", "RUNNING")

    def stop(self, job: str, patience: float) -> bool:
        self.stopped.append(job)
        return True

    def exit_code(self, job: str) -> int | None:
        return self.code

    def log(self, job: str) -> str:
        return f"last words of {job}"
