"""The services of deploy/compose as processes of this machine, each with the command and the environment of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml
from compose_file import COMPOSE, DEPLOY, example_variables, services
from label_studio import free_port
from loops import small
from object_server import S3Server
from postgres import PostgresServer

from rlhf_dagster.labeling.label_studio.server import environment_folder

SECRETS = {name: f"{name.lower().replace('_', '-')}-1" for name, value in example_variables().items() if not value} | {
    "LABEL_STUDIO_USERNAME": "admin@example.com",
    "LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567",
}
"""What `.env` is filled with; none of it may be seen anywhere."""
SHOWN = {"LABEL_STUDIO_USERNAME", "AWS_ACCESS_KEY_ID"}
"""Names of accounts, which are no secrets."""
OF_THE_IMAGE = {"code", "daemon", "web", "bucket"}
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass
class Deployment:
    """Postgres and a bucket that are there, and what is started beside them, in ``folder``."""

    folder: Path
    database: PostgresServer
    objects: S3Server
    cache: Path
    web_port: int = field(default_factory=free_port)
    code_port: int = field(default_factory=free_port)
    label_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    def prepare(self, **sections: Any) -> None:
        """The databases, the bucket, the instance's folder, and the project with a small loop in place of its own."""
        self._run_in_database(COMPOSE / "databases.sql")
        home = self.folder / "home"
        home.mkdir()
        instance = (DEPLOY / "postgres" / "dagster.yaml").read_text(encoding="utf-8")
        (home / "dagster.yaml").write_text(instance.replace("5432", str(self.database.port)), encoding="utf-8")
        workspace = (COMPOSE / "workspace.yaml").read_text(encoding="utf-8")
        there = workspace.replace("host: code", "host: 127.0.0.1").replace("4000", str(self.code_port))
        (home / "workspace.yaml").write_text(there, encoding="utf-8")
        shutil.copytree(DEPLOY / "project", self.project, ignore=shutil.ignore_patterns("__pycache__"))
        declared = self.project / "team_rlhf" / "defs" / "sentiment" / "defs.yaml"
        written = yaml.safe_load(declared.read_text(encoding="utf-8"))
        kept = {name: written["attributes"][name] for name in ("root", "ledger", "label_store", "compute")}
        store = kept["label_store"] | {"simulated_annotators": True}
        own = small(label_store=store, compute=kept["compute"], **sections)
        written["attributes"] = own | {name: kept[name] for name in ("root", "ledger")}
        declared.write_text(yaml.safe_dump(written), encoding="utf-8")
        assert self.run("bucket").returncode == 0

    def start(self, *names: str) -> None:
        """Start services and wait until each serves."""
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    self._command(name),
                    env=self.environment(name),
                    cwd=self.project,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_for(name)

    def kill(self, *names: str) -> None:
        for name in names:
            os.killpg(self.processes.pop(name).pid, signal.SIGKILL)

    def stop(self) -> None:
        """End all that was started, runs included."""
        self.kill(*self.processes)
        for pid in self.found("execute_run"):
            os.kill(pid, signal.SIGKILL)

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in a service's environment; its own command where none is given."""
        return subprocess.run(
            command or self._command(service),
            env=self.environment(service),
            cwd=self.project,
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, name: str) -> dict[str, str]:
        """What compose gives a service, what its image sets, and of this machine's what any process has."""
        ours = {name: os.environ[name] for name in KEPT if name in os.environ} | {"HOME": str(self.folder)}
        if name in OF_THE_IMAGE:
            programs = str(Path(sys.executable).parent)
            ours |= {
                "PATH": os.pathsep.join([programs, ours["PATH"]]),
                "DAGSTER_HOME": str(self.folder / "home"),
                "RLHF_ROOT": str(self.folder / "work"),
                "RLHF_CACHE": str(self.cache),
                "PYTHONPATH": os.pathsep.join([str(self.project), str(DEPLOY.parent)]),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            }
        else:
            ours["LABEL_STUDIO_BASE_DATA_DIR"] = str(self.folder / "label-studio")
        given = {key: str(value) for key, value in self._service(name)["environment"].items()}
        return ours | {key: value.replace("5432", str(self.database.port)) for key, value in given.items()}

    def found(self, *words: str) -> list[int]:
        """Processes that were started for this deployment and have these words in their command line."""
        marks = [str(self.folder).encode(), *(word.encode() for word in words)]
        return [pid for pid, command, environment in _processes() if all(one in command + environment for one in marks)]

    def shown(self) -> dict[str, str]:
        """Where a secret can be read by people: command lines, logs and files. Empty where it is nowhere."""
        secrets = {name: value.encode() for name, value in SECRETS.items() if name not in SHOWN}
        mark = str(self.folder).encode()
        texts = {f"process {pid}": command for pid, command, environment in _processes() if mark in environment}
        texts |= {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        private = str(self.folder / "label-studio")
        return {
            where: name
            for where, text in texts.items()
            for name, secret in secrets.items()
            if secret in text and not where.startswith(private)
        }

    def _service(self, name: str) -> dict[str, Any]:
        variables = SECRETS | {
            "RLHF_BUCKET": "rlhf",
            "DAGSTER_PG_HOST": "127.0.0.1",
            "AWS_ENDPOINT_URL": self.objects.url,
            "LABEL_STUDIO_URL": f"http://127.0.0.1:{self.label_port}",
        }
        return services(variables)[name]

    def _command(self, name: str) -> list[str]:
        """A service's own, with this machine's programs, ports and folders in it."""
        if name == "label-studio":  # the image's own
            program = str(environment_folder() / "venv" / "bin" / "label-studio")
            return [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(self.label_port)]
        here = {
            "0.0.0.0": "127.0.0.1",
            "3000": str(self.web_port),
            "4000": str(self.code_port),
            "/opt/dagster/workspace.yaml": str(self.folder / "home" / "workspace.yaml"),
            "/opt/rlhf/make_bucket.py": str(COMPOSE / "make_bucket.py"),
        }
        program, *arguments = (here.get(word, word) for word in self._service(name)["command"])
        return [str(Path(sys.executable).with_name(program)), *arguments]

    def _wait_for(self, name: str) -> None:
        look = {
            "code": lambda: self.run("code", *self._health()).returncode == 0,
            "web": lambda: _answers(f"{self.address}/server_info"),
            "label-studio": lambda: _answers(f"http://127.0.0.1:{self.label_port}/health"),
        }.get(name, lambda: True)
        while not look():
            log = self.folder / f"{name}.log"
            assert self.processes[name].poll() is None, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(1)

    def _health(self) -> list[str]:
        """Compose's own look at the code server."""
        program, *arguments = self._service("code")["healthcheck"]["test"][1:]
        words = [word.replace("4000", str(self.code_port)) for word in arguments]
        return [str(Path(sys.executable).with_name(program)), *words]

    def _run_in_database(self, file: Path) -> None:
        where = ["-h", "127.0.0.1", "-p", str(self.database.port), "-U", "rlhf", "-d", "postgres"]
        command = [str(self.database.programs / "psql"), *where, "-f", str(file)]
        given = {name: SECRETS[name] for name in SECRETS if name.endswith("_PG_PASSWORD")}
        subprocess.run(command, env=os.environ | given, check=True, capture_output=True)


def _processes() -> list[tuple[int, bytes, bytes]]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found.append((int(path.name), (path / "cmdline").read_bytes(), (path / "environ").read_bytes()))
        except OSError:
            continue
    return found


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=10):
            return True
    except OSError:
        return False
