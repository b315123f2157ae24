"""Builds and steers ``shim.c``, which stands between this process and its file system."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

SOURCE = Path(__file__).with_name("shim.c")
COUNT, KILL, TEAR, FAIL, FULL = range(5)
_HEADER = 1 + 4 + 4 + 8 + 8


@dataclass(frozen=True)
class Call:
    """One call that succeeded. ``kind`` is a letter of ``shim.c``; a mark has its text in ``path``."""

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def can_build() -> bool:
    """Whether this machine has what the shim needs."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def build() -> Path:
    """Compile the shim, once for each of its versions; returns the library."""
    name = f"rlhf-shim-{os.getuid()}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    library = Path(tempfile.gettempdir(), name)
    if not library.exists():
        beside = library.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(beside), str(SOURCE), "-ldl"], check=True)  # noqa: S603, S607
        beside.replace(library)
    return library


def under_shim(module: str) -> None:
    """Replace this process by ``python -m module`` with the same arguments and the shim in it, unless it is there."""
    library = str(build())
    if os.environ.get("LD_PRELOAD") != library:
        environment = os.environ | {"LD_PRELOAD": library, "OMP_NUM_THREADS": "1"}
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)  # noqa: S606


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build()))
    library.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.shim_count.restype = ctypes.c_long
    library.shim_mark.argtypes = [ctypes.c_char_p]
    library.shim_leave_out.argtypes = [ctypes.c_char_p]
    return library


def arm(folder: Path, action: int, at: int = 0, error: int = 0, log: int = -1) -> None:
    """From here on, calls about files in ``folder`` are counted, and those from ``at`` on (from 0) meet ``action``.

    COUNT lets them be, KILL ends the process before the call, TEAR in the middle of a write and after another call,
    FAIL lets one call fail with ``error``, FULL is a disk without room from there on. ``log`` is a file descriptor to
    which they are written.
    """
    _library().shim_arm(os.fsencode(folder.resolve()), action, at, error, log)


def leave_out(folder: Path) -> None:
    """Neither count nor disturb calls about files in this folder."""
    _library().shim_leave_out(os.fsencode(folder.resolve()))


def trace(log: int) -> None:
    """Write a line for each call that is counted to a file descriptor: its letter in ``shim.c``, and the file."""
    _library().shim_trace(log)


def disarm() -> None:
    _library().shim_disarm()


def count() -> int:
    """Calls since :func:`arm`."""
    return int(_library().shim_count())


def mark(text: str) -> None:
    """Write down that something is confirmed."""
    _library().shim_mark(text.encode())


def read_log(file: BinaryIO) -> Iterator[Call]:
    """The calls in a log, oldest first."""
    while header := file.read(_HEADER):
        first, second = (int.from_bytes(header[at : at + 4], sys.byteorder) for at in (1, 5))
        offset = int.from_bytes(header[9:17], sys.byteorder, signed=True)
        length = int.from_bytes(header[17:25], sys.byteorder)
        names = os.fsdecode(file.read(first)), os.fsdecode(file.read(second))
        yield Call(chr(header[0]), *names, offset, file.read(length))


def in_child(act: Callable[[], str]) -> tuple[str, str]:
    """Run ``act`` in a forked process; returns how it ended (``done``, ``raised``, ``killed``) and its text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            ended = f"done {act()}"
        except BaseException as error:  # whatever it is, it is the answer
            ended = f"raised {type(error).__name__}: {error}"
        disarm()
        os.write(writing, ended.encode(errors="replace")[:60000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    kind, _, said = text.partition(" ")
    return kind or "killed", said
