"""Ports of this machine's loopback address, on which our servers listen."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rlhf_dagster.errors import UserError

LOOPBACK = "127.0.0.1"
_LISTENS = "0A"
"""The state of a socket that listens, in the system's table."""


def why_not_free(port: int) -> str:
    """Why no server can listen at a port; empty where one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or "not a port"
    return ""


def strangers_at(port: int) -> set[int]:
    """Ids of the users, other than this one and the system's, who listen on a port of this machine.

    Empty where there is nobody, and where the system does not say whose a port is.
    """
    return {uid for uid, listened in _listeners() if listened == port} - {0, os.getuid()}


def _listeners() -> Iterator[tuple[int, int]]:
    """User and port of each socket of this machine that listens; on Linux alone."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    yield int(fields[7]), int(fields[1].rpartition(":")[2], 16)


def require_free(port: int, what: str) -> None:
    """Raise UserError, which begins with ``what``, where no server can listen at a port."""
    if reason := why_not_free(port):
        raise UserError(f"{what}: {reason}; choose another port.")
