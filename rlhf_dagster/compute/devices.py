"""Which GPUs a training may use: Dagster's pool only counts steps, so concurrent steps divide the GPUs by locks."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.errors import UserError


@dataclass(frozen=True)
class Lease:
    """Devices held, and the open lock files that hold them; a child that inherits these holds the devices too."""

    devices: tuple[str, ...]
    files: tuple[int, ...]


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them. CUDA is not asked: it would hold one."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(lines_of(listed.stdout)) if line.startswith("GPU")]


@contextmanager
def leased(n: int, devices: list[str], folder: Path) -> Iterator[Lease]:
    """Hold ``n`` of ``devices``, by locks in ``folder`` that the system frees when all their holders are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        held: list[tuple[str, IO[str]]] = []
        for device in devices:
            if len(held) == n:
                break
            file = stack.enter_context((folder / f"gpu-{device.replace('/', '_')}.lock").open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            held.append((device, file))
        if len(held) < n:
            raise UserError(
                f"{n} GPUs are needed and {len(held)} of {len(devices)} are free; wait for the runs that hold them, or "
                "lower compute.processes or the limit of the pool `gpu`."
            )
        yield Lease(tuple(device for device, _ in held), tuple(file.fileno() for _, file in held))
