"""Ports of this machine's loopback address, on which our servers listen."""

import socket

from rlhf_dagster.errors import UserError

LOOPBACK = "127.0.0.1"


def why_not_free(port: int) -> str:
    """Why no server can listen at a port; empty where one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            return getattr(error, "strerror", None) or "not a port"
    return ""


def require_free(port: int, what: str) -> None:
    """Raise UserError, which begins with ``what``, where no server can listen at a port."""
    if reason := why_not_free(port):
        raise UserError(f"{what}: {reason}; choose another port.")
