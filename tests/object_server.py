"""An S3 server on this machine, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from label_studio import free_port

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}


DOWN = 5.0
"""Seconds for which nobody listens while the server restarts."""
_SERVER = """
import signal, sys, time
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
application = DomainDispatcherApplication(create_backend_app)
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
while True:
    server = make_server(sys.argv[1], int(sys.argv[2]), application)
    server.timeout = 0.2
    while not asked:
        server.handle_request()
    asked.clear()
    server.server_close()
    time.sleep(float(sys.argv[3]))
"""
"""One request at a time: moto looks whether something is there and writes it in two steps, which S3 does in one.

It keeps all in memory, so that a restart closes its port and opens it again.
"""


@dataclass(frozen=True)
class S3Server:
    url: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """What a client must find in its environment."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true"}

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return name

    def hold(self, seconds: float) -> None:
        """Answer nothing for a while."""
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """End as a server does that is told to, with the request that it is at, and come back with all that it had."""
        os.kill(self.pid, signal.SIGUSR1)
        while self.answers():
            time.sleep(0.1)
        while not self.answers():
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/moto-api/").close()
        except OSError:
            return False
        return True


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, "-c", _SERVER, host, str(port), str(DOWN)]
    environment = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": "1000"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    server = S3Server(f"http://{host}:{port}", process.pid)
    try:
        _wait_for(server, process)
        yield server
    finally:
        process.kill()  # it has nothing to save, and a process that was begun with SIGTERM ignored passes that on
        process.wait()


def _wait_for(server: S3Server, process: subprocess.Popen[bytes]) -> None:
    while not server.answers():
        assert process.poll() is None, "the S3 server ended by itself"
        time.sleep(0.1)
