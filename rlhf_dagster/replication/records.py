"""What a replication came to, as `replication.json` has it and the page shows it."""

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.common.version import __version__
from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Criterion, Measured, Size

RECORD_FILE = "replication.json"
FAILED = "failed"
"""Stands in the place of a verdict where a variant, or a measurement, failed."""
_LIBRARIES = ("torch", "transformers", "dagster", "numpy", "pandas")


def this_machine() -> dict[str, Any]:
    """What this machine is: processor, cores that this process may use, memory in GiB, system."""
    memory = round(psutil.virtual_memory().total / 2**30, 1)
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions_used() -> dict[str, str]:
    """Of this package and of the libraries that decide what is computed."""
    return {"rlhf-dagster": __version__} | {name: version(name) for name in _LIBRARIES}


@dataclass(frozen=True)
class VariantRecord:
    """A loop that a claim was measured on."""

    name: str
    seed: int
    folder: str
    """Of the loop, relative to the replication's."""
    task: str
    rounds: int
    until: str
    settings: Mapping[str, Any]
    """What differs from the task's own settings."""
    seconds: Mapping[str, float]
    """By asset and probe, over all calls."""


@dataclass(frozen=True)
class ClaimRecord:
    """One claim: what the paper says, what we found, and what follows."""

    name: str
    title: str
    source: str
    paper: str
    """The paper's figure, in a sentence."""
    verdict: str
    """A :data:`~rlhf_dagster.replication.verdicts.Verdict`, or :data:`FAILED`."""
    summary: str
    """Our figure, in a sentence; why there is none, where the verdict is :data:`FAILED`."""
    seeds: Sequence[int]
    criteria: Sequence[Criterion]
    figures: Sequence[Measured]
    """Of each of the claim's seeds, in their order; those that failed are left out."""
    variants: Sequence[VariantRecord]


@dataclass(frozen=True)
class ReplicationRecord:
    """All claims of one call of `rlhf replicate`."""

    size: Size
    seeds: Sequence[int]
    """Those that were asked for; a claim may have more."""
    claims: Sequence[ClaimRecord]
    seconds: float
    """Of computing, over all variants and calls."""
    machine: Mapping[str, Any] = field(default_factory=this_machine)
    versions: Mapping[str, str] = field(default_factory=versions_used)
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """When, as ISO 8601 in UTC."""


def write_replication(out: Path, record: ReplicationRecord) -> Path:
    """Write `replication.json` into the folder and return its path. Infinite and missing numbers become null."""
    path = out / RECORD_FILE
    write_atomically(path, seal(_plain(asdict(record))))
    return path


def read_replication(out: Path) -> dict[str, Any]:
    """What `replication.json` says; raises UserError where there is none, Damaged where it was changed."""
    path = out / RECORD_FILE
    if not path.exists():
        raise UserError(f"{path}: there is no replication yet; run `rlhf replicate --out {shlex.quote(str(out))}`.")
    return unseal(path.read_bytes(), str(path))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return None
    return value
