"""A Label Studio server of the loop's own: installed in an environment of its own, started on loopback.

It is not installed beside us because it pins the versions of some forty packages and its top-level modules have names
such as ``users`` and ``tasks``.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from rlhf_dagster.common.child_processes import end_with_parent, python_command
from rlhf_dagster.common.files import cache_folder, locked, write_atomically
from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.common.ports import LOOPBACK, require_free
from rlhf_dagster.errors import UserError

VERSION = "1.23.2"
REQUIREMENTS = (f"label-studio=={VERSION}", "setuptools")
"""Label Studio imports setuptools without declaring it."""
CONSTRAINTS = f"label-studio-{VERSION}.txt"
"""Versions of all packages that Label Studio needs: a file among our templates."""
EMAIL = "admin@example.com"
DATABASE = "label_studio.sqlite3"
CREDENTIALS = "credentials.env"
SIGNING_KEY = ".env"
"""Where Label Studio keeps the key that signs its sessions and tokens."""
LOG = "label-studio.log"
GRACE = 15.0
"""Seconds that the server has to stop by itself."""
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""Environment variables passed on to the server, which would take DEBUG, HOST or POSTGRE_HOST for its own settings."""
SETTINGS = {
    # Nobody joins without an invitation.
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    # Takes effect when the organization is made; the token below is a legacy one, since a personal access token can
    # only be made by somebody who is logged in.
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    # Nothing is reported to anybody.
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    # Scripts that get into a page do not run; by default the policy only reports them.
    "LS_CSP_REPORT_ONLY": "false",
}


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    folder: Path


def environment_folder() -> Path:
    """Where Label Studio is installed for all loops of this user: beside the base models that are kept."""
    return cache_folder() / f"label-studio-{VERSION}"


def is_installed() -> bool:
    return (environment_folder() / "ready").exists()


def install() -> Path:
    """Install Label Studio unless it is there, with an empty database that new servers start from; returns its folder.

    Raises UserError where pip fails; its output is in ``install.log`` there.
    """
    folder = environment_folder()
    with locked(folder.with_name(f"{folder.name}.lock")):
        if is_installed():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        log = folder / "install.log"
        _logged(python_command("-m", "venv", str(folder / "venv")), log)
        python = str(folder / "venv" / "bin" / "python")
        constraints = str(resources.files("rlhf_dagster") / "templates" / CONSTRAINTS)
        pip = [python, "-P", "-m", "pip", "install", "--disable-pip-version-check", "-c", constraints]
        _logged([*pip, *REQUIREMENTS], log)
        # Any command migrates the database first, which takes half a minute; new servers copy the migrated one.
        _logged([_program(), "version"], log, _environment(folder / "template"))
        (folder / "ready").touch()
    return folder


def local_credentials(folder: Path) -> dict[str, str] | None:
    """Login and token of the server whose data is in ``folder``; None where there is none."""
    path = folder / CREDENTIALS
    if not path.exists():
        return None
    lines = (line.partition("=") for line in lines_of(path.read_text(encoding="utf-8")) if "=" in line)
    return {name: value for name, _, value in lines}


@contextmanager
def running(folder: Path, port: int) -> Iterator[Server]:
    """Label Studio on loopback with its data in ``folder``, ready to answer; stopped at the end.

    Raises UserError if the port is taken (the server would silently take another one) or it does not start.
    """
    install()
    require_free(port, f"Port {port} of {LOOPBACK}")
    prepare(folder)
    process = start(folder, port)
    try:
        _wait_until_ready(process, port, folder / LOG)
        yield Server(f"http://{LOOPBACK}:{port}", process, folder)
    finally:
        stop_server(process)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and whatever it started; it has a process group of its own."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def prepare(folder: Path) -> None:
    """Data folder, database and credentials, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if not (folder / DATABASE).exists():
        # Only the database: the template's key would sign the sessions of every server that was copied from it.
        beside = folder / f".{DATABASE}.new"
        shutil.copyfile(environment_folder() / "template" / DATABASE, beside)
        beside.chmod(0o600)
        beside.replace(folder / DATABASE)
    if not (folder / CREDENTIALS).exists():
        given = os.environ
        credentials = {
            "LABEL_STUDIO_USERNAME": given.get("LABEL_STUDIO_USERNAME", EMAIL),
            "LABEL_STUDIO_PASSWORD": given.get("LABEL_STUDIO_PASSWORD") or secrets.token_urlsafe(12),
            "LABEL_STUDIO_API_KEY": secrets.token_hex(20),
        }
        lines = "".join(f"{name}={value}\n" for name, value in credentials.items())
        write_atomically(folder / CREDENTIALS, lines.encode(), private=True)
    if not _has_a_signing_key(folder / SIGNING_KEY):
        write_atomically(folder / SIGNING_KEY, f"SECRET_KEY={secrets.token_hex(32)}\n".encode(), private=True)


def _has_a_signing_key(path: Path) -> bool:
    """Whether there is a key that Label Studio will read again.

    One that it draws itself starts with a dollar sign once in fifty times; it takes that for the name of an environment
    variable, and draws another one at each start, which ends every session.
    """
    lines = lines_of(path.read_text(encoding="utf-8")) if path.exists() else []
    keys = [line.partition("=")[2] for line in lines if line.startswith("SECRET_KEY=")]
    return bool(keys) and not keys[0].startswith("$")


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server on what :func:`prepare` made; it may not answer yet."""
    log, credentials = folder / LOG, local_credentials(folder) or {}
    environment = _environment(folder) | {
        "LABEL_STUDIO_USERNAME": credentials["LABEL_STUDIO_USERNAME"],
        "LABEL_STUDIO_PASSWORD": credentials["LABEL_STUDIO_PASSWORD"],
        "LABEL_STUDIO_USER_TOKEN": credentials["LABEL_STUDIO_API_KEY"],
    }
    command = [_program(), "start", "--no-browser", "--internal-host", LOOPBACK, "--port", str(port)]
    with log.open("w", encoding="utf-8") as output:
        log.chmod(0o600)
        return subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # we have no threads here
        )


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    while process.poll() is None:
        if answers(f"http://{LOOPBACK}:{port}/health"):
            return
        time.sleep(0.2)
    raise UserError(f"Label Studio did not start; {log} says why.")


def answers(address: str) -> bool:
    """Whether a server on this machine has something at an address."""
    opener = build_opener(ProxyHandler({}))  # a proxy cannot reach this machine
    try:
        with opener.open(address, timeout=5):
            return True
    except (URLError, OSError):
        return False


def _environment(folder: Path) -> dict[str, str]:
    """Environment of a server whose data is in ``folder``."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | SETTINGS | {"LABEL_STUDIO_BASE_DATA_DIR": str(folder.resolve())}


def _program() -> str:
    return str(environment_folder() / "venv" / "bin" / "label-studio")


def _logged(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command with its output in ``log``, in our environment or another one."""
    with log.open("a", encoding="utf-8") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)  # noqa: S603
    if done.returncode:
        raise UserError(f"Label Studio could not be installed ({Path(command[0]).name} failed); {log} says why.")


SERVER_FOLDER = "label-studio"
"""Data folder, inside the loop's, of the server that `rlhf label-studio up` starts."""


def is_local(url: str) -> bool:
    """Whether an address is on this machine."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
