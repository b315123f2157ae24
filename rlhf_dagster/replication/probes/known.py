"""The probes by name."""

from collections.abc import Callable
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.probes.responses import base_responses

ProbeFunction = Callable[..., Any]
"""Takes the finished loop and the probe's options, and gives what JSON can hold."""
PROBES: dict[str, ProbeFunction] = {"base_responses": base_responses}


def find_probe(name: str) -> ProbeFunction:
    """The probe of that name; raises UserError with all names where there is none."""
    if name not in PROBES:
        raise UserError(f"There is no probe {name}; choose one of {', '.join(PROBES)}.")
    return PROBES[name]
