"""Which machine this is, for those who share a disk or have copied one."""

import hashlib
import socket
import uuid
from functools import cache
from pathlib import Path

_ID_FILES = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


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
