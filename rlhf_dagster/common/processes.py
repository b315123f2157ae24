"""Processes of this host: which host it is, the descendants of one, whether one still runs, and which run a command."""

import getpass
import hashlib
import os
import re
import socket
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import psutil

TICKS = os.sysconf("SC_CLK_TCK")
"""Clock ticks of a second."""
SLACK = 0 if sys.platform == "linux" else 5 * TICKS
"""Ticks by which the start of one process may differ from look to look: elsewhere than on Linux it follows the clock,
which may be adjusted while the process runs. A pid that is used again so soon is taken for the same process."""
_UNKNOWN = "unknown"
"""Stands for the start in the tags that version 0.1 wrote where there is no ``/proc``."""
_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT_FILE, _NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
_CONTAINER_ID = re.compile(r"[0-9a-f]{12}")
"""What an engine calls a container that nobody has named: no other one has the name."""


def user_name() -> str:
    """Who runs this process; a number where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def descendants(root: int) -> list[int]:
    """Ids of the living processes below ``root``: its children, theirs, and so on."""
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process.pid for process in found if _lives(process)]


def own_host() -> str:
    """The machine's name, for people."""
    return socket.gethostname()


@cache
def machine_id() -> str:
    """16 hex digits that stay the same when the machine starts again, or is called otherwise.

    The system's own id is not to be shown (machine-id(5)), so it is hashed; without one it is the network card's
    address, and without a card the name.
    """
    found = next((text for file in _ID_FILES if (text := _read(file))), "") or _card() or own_host()
    return hashlib.sha256(f"rlhf_dagster {found}".encode()).hexdigest()[:16]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _card() -> str:
    """Its address; empty where the number was made at random, which the lowest bit of its first byte says."""
    number = uuid.getnode()
    return "" if number >> 40 & 1 else f"{number:012x}"


@cache
def process_space() -> str:
    """Tells where pids mean the same processes, as ``MACHINE.BOOT.NAMESPACE``; empty where the system does not say.

    Containers have namespaces of their own, and may have the name of their host.
    """
    boot = _read(_BOOT_FILE).replace("-", "")[:8]
    try:
        namespace = re.sub(r"\D", "", _NAMESPACE.readlink().name)
    except OSError:
        namespace = ""
    return f"{machine_id()[:8]}.{boot}.{namespace}" if boot and namespace else ""


def process_tag(pid: int) -> str:
    """Names a process of this host for ever, as ``PID:STARTED@HOST+SPACE``: a pid alone is used again, also elsewhere.

    ``SPACE`` is :func:`process_space`; without one there is no ``+`` either.
    """
    return f"{pid}:{_started(pid)}@{'+'.join(filter(None, (own_host(), process_space())))}"


def begun_at() -> datetime:
    """When this process was begun, before it had read a line of ours: to 1/100 s on Linux, else as psutil says."""
    ticks = _started(os.getpid())
    if not (ticks.isdigit() and sys.platform == "linux"):
        return datetime.fromtimestamp(psutil.Process().create_time(), UTC)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(ticks) / TICKS
    return datetime.now(UTC) - timedelta(seconds=age)


def other_host(tag: str) -> str:
    """Where the process of a :func:`process_tag` is, if its host or its container is another one; else empty.

    Tags of version 0.1 name no host: they are this host's.
    """
    host, _, space = tag.partition("@")[2].partition("+")
    if host not in ("", own_host()):
        return host
    ours = process_space()
    if not (space and ours) or space == ours or _has_ended_with(space, ours):
        return ""
    same_machine = space.partition(".")[0] == ours.partition(".")[0]
    return f"{host}, in another container" if same_machine else f"another machine that is called {host}"


def is_alive(tag: str) -> bool:
    """Whether the process of a :func:`process_tag` is still there; False as well where its host is another one."""
    return not other_host(tag) and _is_there(tag)


def is_gone(tag: str) -> bool:
    """Whether the process of a :func:`process_tag` has ended; False where its host is another one, and nobody knows."""
    return not other_host(tag) and not _is_there(tag)


def processes_with(*words: str) -> list[int]:
    """Ids, smallest first, of the processes in whose command line each of ``words`` stands."""
    commands = {process.pid: "\0".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    return sorted(pid for pid, command in commands.items() if all(word in command for word in words))


def _is_there(tag: str) -> bool:
    """Whether this host has the process of a tag."""
    space, ours = tag.partition("+")[2], process_space()
    if space and ours and _has_ended_with(space, ours):
        return False
    pid, _, started = tag.partition("@")[0].partition(":")
    now = _started(int(pid))
    if not now or not started:
        return False
    return started == _UNKNOWN or abs(int(started) - int(now)) <= SLACK


def _has_ended_with(space: str, ours: str) -> bool:
    """Whether all processes of a space have ended: the machine, or this container, was started again since."""
    if _CONTAINER_ID.fullmatch(own_host()):
        return space != ours
    (machine, boot), (our_machine, our_boot) = space.split(".")[:2], ours.split(".")[:2]
    return machine == our_machine and boot != our_boot


def _started(pid: int) -> str:
    """When a process started, in ticks since the system did; empty where there is none or it has ended.

    On Linux this is the number that the kernel keeps, which version 0.1 read from ``/proc``: setting the clock does not
    move it.
    """
    try:
        booted = psutil.boot_time()  # first: older versions of psutil compute other times from what it last read
        process = psutil.Process(pid)
        return str(round((process.create_time() - booted) * TICKS)) if _lives(process) else ""
    except psutil.Error:
        return ""


def _lives(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie, which has ended and not been waited for, does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # somebody else's process, whose state the system does not tell
