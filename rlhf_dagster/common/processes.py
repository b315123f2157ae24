"""Processes of this host: the descendants of one, whether one still runs, and which run a command."""

import getpass
import os
import socket
import sys

import psutil

TICKS = os.sysconf("SC_CLK_TCK")
"""Clock ticks of a second."""
SLACK = 0 if sys.platform == "linux" else 5 * TICKS
"""Ticks by which the start of one process may differ from look to look: elsewhere than on Linux it follows the clock,
which may be adjusted while the process runs. A pid that is used again so soon is taken for the same process."""
_UNKNOWN = "unknown"
"""Stands for the start in the tags that version 0.1 wrote where there is no ``/proc``."""


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


def process_tag(pid: int) -> str:
    """Names a process of this host for ever, as ``PID:STARTED@HOST``: a pid alone is used again, also elsewhere."""
    return f"{pid}:{_started(pid)}@{socket.gethostname()}"


def other_host(tag: str) -> str:
    """The host of a :func:`process_tag` where it is another than this one; empty where it is this one.

    Tags of version 0.1 name none: they are this host's.
    """
    host = tag.partition("@")[2]
    return "" if host == socket.gethostname() else host


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
    pid, _, started = tag.partition("@")[0].partition(":")
    now = _started(int(pid))
    if not now or not started:
        return False
    return started == _UNKNOWN or abs(int(started) - int(now)) <= SLACK


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
