"""Ray clusters for the tests, with a token: of one node on this machine's loopback, and one that is none."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from label_studio import free_port

from rlhf_dagster.compute.launchers.child_process import guarded

REPOSITORY = Path(__file__).parents[1]
STARTS = 5


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
    client_port: int = field(default_factory=free_port)
    """Of Ray's client server, which nobody here asks anything, and which every head has."""

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://").split(":")[0]

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
        cluster = new_cluster(Path(name))
        with started_node(cluster, head_options(cluster, cpus), environment) as guard:
            wait_until_up(cluster, guard)
            yield cluster


def new_cluster(folder: Path, host: str = "127.0.0.1") -> RayCluster:
    """One that is not started yet; writes its token."""
    token = os.open(folder / "token", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(token, secrets.token_hex(32).encode())
    os.close(token)
    return RayCluster(f"http://{host}:{free_port()}", folder)


def head_options(cluster: RayCluster, cpus: int, port: int | None = None) -> list[str]:
    """Of `ray start`, for a head node at the address of ``cluster`` with so many CPUs."""
    host, dashboard = cluster.host, cluster.address.split(":")[-1]
    return [
        *("--head", f"--node-ip-address={host}", f"--port={port or free_port()}", f"--dashboard-host={host}"),
        *(f"--dashboard-port={dashboard}", f"--num-cpus={cpus}", f"--temp-dir={cluster.folder}"),
        f"--ray-client-server-port={cluster.client_port}",
    ]


@contextmanager
def started_node(
    cluster: RayCluster, options: Sequence[str], environment: Mapping[str, str], within: Sequence[str] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node that is part of its cluster, by `ray start` with ``options`` and by way of the command ``within``; ended
    with all that it has started.

    Ray gives a node thirty seconds to start, and a head's client server as many, with which the head ends. No setting
    changes that, and a busy machine exceeds it: the node is started again.
    """
    for _ in range(STARTS):
        with _begun_node(cluster, options, environment, within) as guard:
            if _is_part(cluster, guard, "--head" in options):
                yield guard
                return
    raise AssertionError(f"Ray did not start:\n{_log(cluster).read_text(errors='replace')}")


@contextmanager
def _begun_node(
    cluster: RayCluster, options: Sequence[str], environment: Mapping[str, str], within: Sequence[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    _log(cluster).unlink(missing_ok=True)
    if "--head" in options:
        # Ray starts no head where this names one that a process of this machine, such as another host's, knows. While
        # the head runs it has to stay: by it alone jobs tell their cluster from others on this machine.
        (cluster.folder / "ray_current_cluster").unlink(missing_ok=True)
    scripts = Path(sys.executable).parent
    own = {
        "PATH": f"{scripts}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [
        *(*within, str(scripts / "ray"), "start", "--block", "--disable-usage-stats"),
        *(f"--dashboard-agent-listen-port={free_port()}", "--object-store-memory=80000000", *options),
    ]
    given = os.environ | cluster.environment | own | environment
    with _log(cluster).open("wb") as log, guarded(command, 10.0, log, environment=given) as guard:
        yield guard


def _is_part(cluster: RayCluster, guard: "subprocess.Popen[bytes]", is_head: bool) -> bool:
    """Whether the node is, with all that has to start; False where it has ended."""
    while guard.poll() is None:
        if "Ray runtime started" in _log(cluster).read_text(errors="replace") and (not is_head or _is_asked(cluster)):
            return True
        time.sleep(0.2)
    return False


def _is_asked(cluster: RayCluster) -> bool:
    """Whether the client server is there."""
    try:
        socket.create_connection((cluster.host, cluster.client_port), timeout=5).close()
    except OSError:
        return False
    return True


def _log(cluster: RayCluster) -> Path:
    return cluster.folder / "start.log"


def let_in(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process's clients let in.

    Ray keeps what its variables were when a process imported it first, and is told to read them again.
    """
    from ray._private.authentication_test_utils import reset_auth_token_state

    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    reset_auth_token_state()


def wait_until_up(cluster: RayCluster, guard: "subprocess.Popen[bytes]") -> None:
    token = {"Authorization": f"Bearer {cluster.token}"}
    while True:
        assert guard.poll() is None, _log(cluster).read_text(errors="replace")
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
