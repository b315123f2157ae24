"""A real Postgres server for the tests: a new database cluster in a folder, on a free port of this machine."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from label_studio import free_port

USER = "rlhf"
INSTALLED = Path("/usr/lib/postgresql")


def require_postgres() -> Path:
    """The folder of the server's programs. Skip where it is not installed, but fail where CI promises it."""
    beside = shutil.which("initdb")
    found = [*sorted(INSTALLED.glob("*/bin/initdb"), reverse=True), *([Path(beside)] if beside else [])]
    if found:
        return found[0].parent
    sentence = "These tests need a Postgres server; `apt-get install postgresql` installs one."
    if os.environ.get("CI") == "true":
        pytest.fail(sentence)
    pytest.skip(sentence)


@dataclass
class PostgresServer:
    """A server on loopback with a fresh cluster in ``folder``; it refuses root, so root starts it as ``postgres``."""

    programs: Path
    folder: Path
    port: int = field(default_factory=free_port)

    def start(self) -> None:
        data = self.folder / "data"
        if not data.exists():
            self._give_away(self.folder)
            self._run("initdb", "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {self.port} -h 127.0.0.1 -k '' -c max_connections=200"
        self._run("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(data / "log"), "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def address(self, schema: str = "") -> str:
        """Of a schema of its own, unless one is named."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres?schema={schema or f's{uuid4().hex[:12]}'}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        done = subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr

    def _give_away(self, folder: Path) -> None:
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
