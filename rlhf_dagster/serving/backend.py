"""A server of one policy, in a process of its own: transformers' or vLLM's."""

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Condition
from typing import Literal

from rlhf_dagster.common.child_processes import plain_environment, python_command
from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.errors import UserError

BackendKind = Literal["transformers", "vllm"]
Command = Callable[[Path, int, str], list[str]]
"""The command line that serves the model in a folder at a port, under the policy's id."""
NEEDS = {"transformers": ("fastapi", "uvicorn", "openai"), "vllm": ("vllm",)}
"""The packages that each kind of server needs; extras of this package."""
_LOOK_EVERY = 0.1
_TAIL = 2000
"""Bytes of the log in which the reason of a failure is looked for."""


def command_of(kind: BackendKind, options: Sequence[str] = ()) -> Command:
    """The command of a kind, with further ``options``; raises UserError where its packages are not installed."""
    missing = [name for name in NEEDS[kind] if find_spec(name) is None]
    if missing:
        extra = "serve" if kind == "transformers" else kind
        raise UserError(f"--backend {kind} needs {', '.join(missing)}; `{install_extras(extra)}`.")

    def transformers(folder: Path, port: int, policy_id: str) -> list[str]:
        program = python_command("-m", "transformers.cli.transformers", "serve", str(folder))
        return [*program, "--host", LOOPBACK, "--port", str(port), *options]

    def vllm(folder: Path, port: int, policy_id: str) -> list[str]:
        program = python_command("-m", "vllm.entrypoints.openai.api_server", "--model", str(folder))
        return [*program, "--served-model-name", policy_id, "--host", LOOPBACK, "--port", str(port), *options]

    return transformers if kind == "transformers" else vllm


class Backend:
    """A server that is ready, and how many requests are with it."""

    def __init__(self, policy_id: str, folder: Path, command: Command, log: Path) -> None:
        """Start the server and wait until it is ready; raises UserError where it ends instead."""
        self.policy_id, self.port = policy_id, _free_port()
        self._idle, self._requests = Condition(), 0
        # Everything is in the folder: nothing is to be fetched, and no key is needed.
        environment = plain_environment() | {"HF_HUB_OFFLINE": "1"}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            began = output.tell()
            self._process = subprocess.Popen(  # noqa: S603
                command(folder, self.port, policy_id), stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        try:
            self._wait_until_ready(log, began)
        except BaseException:
            self.stop()
            raise

    @property
    def requests(self) -> int:
        """How many requests are with the server."""
        return self._requests

    def lives(self) -> bool:
        return self._process.poll() is None

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around a request, until its answer is read to the end."""
        with self._idle:
            self._requests += 1
        try:
            yield
        finally:
            with self._idle:
                self._requests -= 1
                self._idle.notify_all()

    def stop_when_idle(self) -> None:
        """Wait for the requests that are with the server, and stop it."""
        with self._idle:
            self._idle.wait_for(lambda: self._requests == 0 or not self.lives())
        self.stop()

    def stop(self) -> None:
        """Stop the server now."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, log: Path, began: int) -> None:
        while not self._is_ready():
            if not self.lives():
                raise UserError(
                    f"The server of {self.policy_id} has ended ({_last_line(log, began)}); {log} says more."
                )
            time.sleep(_LOOK_EVERY)

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _last_line(log: Path, began: int) -> str:
    """The last line that was printed since the log was ``began`` bytes long."""
    printed = log.read_bytes()[began:][-_TAIL:].decode(errors="replace").strip().splitlines()
    return printed[-1].strip().rstrip(".") if printed else "it printed nothing"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
