"""A real Label Studio server for the tests: installed once on the machine, started once a session on a free port."""

import os
import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.server import EMAIL, Server, is_installed, local_credentials, running
from rlhf_dagster.labeling.label_studio.session import AnnotatorSession

MEMBER_PASSWORD = "one-that-nobody-needs-to-guess"


def require_label_studio() -> None:
    """Skip where it is not installed, but fail where CI promises it."""
    if is_installed():
        return
    sentence = "These tests need Label Studio; `rlhf label-studio install` (or `make test`) installs it."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@dataclass
class LabelStudioServer:
    """A server on a port of its own with a fresh database in ``folder``."""

    folder: Path
    port: int
    email: str = EMAIL
    _stack: ExitStack = field(default_factory=ExitStack)
    _server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return self._credentials()["LABEL_STUDIO_API_KEY"]

    @property
    def password(self) -> str:
        return self._credentials()["LABEL_STUDIO_PASSWORD"]

    def client(self, timeout: float = 60.0) -> LabelStudioClient:
        return LabelStudioClient(self.url, self.token, timeout)

    def member(self, email: str) -> AnnotatorSession:
        """A new member who signed up with the invitation."""
        return AnnotatorSession.join(self.url, self.client().invite_url(), email, MEMBER_PASSWORD)

    def personal_token(self, email: str) -> str:
        """The personal access token of a new member; the server shows it once."""
        member = self.member(email)
        token = member._send("POST", "api/token/", {})["token"]
        member.close()
        return str(token)

    def start(self) -> None:
        self._server = self._stack.enter_context(running(self.folder, self.port))

    def stop(self) -> None:
        self._stack.close()

    def kill(self) -> None:
        """End it without a chance to finish anything."""
        assert self._server is not None
        os.killpg(self._server.process.pid, signal.SIGKILL)
        self._server.process.wait()
        self.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _credentials(self) -> dict[str, str]:
        found = local_credentials(self.folder)
        assert found is not None
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
