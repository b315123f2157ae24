"""How much memory is free: of this machine, within the limits of its control groups, and of its GPUs."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.compute.devices import visible_devices
from rlhf_dagster.config.training import ComputeSettings

OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Free:
    """Free bytes (None: the system does not say), where, and whether all processes of a training share them."""

    bytes: int | None
    where: str
    shared: bool


def free_memory(compute: ComputeSettings) -> Free:
    """What is free where ``compute`` trains. On GPUs: what each of the `processes` emptiest has at least.

    On Ray nobody knows before a training's processes have their nodes; they look themselves.
    """
    if compute.launch == "ray":
        return Free(None, "Ray's nodes", shared=False)
    free = None if compute.device == "cpu" else _free_on_gpu(compute)
    return free or Free(free_on_machine(), "this machine", shared=True)


def free_on_machine() -> int | None:
    """Bytes that the system says are available, or that a control group of this process leaves where that is less."""
    amounts = [_available(), *(_left(folder, files) for folder, files in _control_groups())]
    return min((amount for amount in amounts if amount is not None), default=None)


def _free_on_gpu(compute: ComputeSettings) -> Free | None:
    """What is free on the GPU; None where the training will find no GPU."""
    if compute.launch == "process":
        return _free_on_gpus_of_a_child(compute.processes)
    import torch

    if not torch.cuda.is_available():
        return None
    # What PyTorch has taken from the device and does not use is free to this process.
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return Free(torch.cuda.mem_get_info()[0] + kept, f"the GPU {torch.cuda.get_device_name()}", shared=False)


def _free_on_gpus_of_a_child(processes: int) -> Free | None:
    """Asks the driver's tool: CUDA in this process would hold memory on a device that the child is to have."""
    devices = visible_devices()
    if not devices:
        return None
    query = ["nvidia-smi", "-i", ",".join(devices), "--query-gpu=memory.free,name", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return Free(None, "the GPU", shared=False)
    gpus = [(int(found[1]) << 20, found[2]) for found in re.finditer(r"^(\d+), (.*)$", listed, re.MULTILINE)]
    if len(gpus) < processes:
        return Free(None, "the GPU", shared=False)
    free, name = sorted(gpus, reverse=True)[processes - 1]
    return Free(free, f"the GPU {name}", shared=False)


def _available() -> int | None:
    """None where the system does not say: psutil raises KeyError for a line that ``/proc/meminfo`` lacks."""
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, KeyError):
        return None


@dataclass(frozen=True)
class _Files:
    """What a version of control groups calls a group's limit, its use, and the cached files within that use."""

    limit: str
    used: str
    cached: tuple[str, str]


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Files("memory.max", "memory.current", ("inactive_file", "active_file"))


def _control_groups() -> Iterator[tuple[Path, _Files]]:
    """The groups of this process, each followed by the groups that contain it: all their limits apply.

    In a container without its own cgroup namespace the innermost folders are missing, and its group is the root.
    """
    try:
        lines = lines_of(OWN_GROUPS.read_text(encoding="utf-8"))
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, files = (GROUPS / "memory", _V1) if controllers else (GROUPS, _V2)
        inside = PurePosixPath(*(part for part in group.split("/") if part not in ("", "..")))
        for folder in (inside, *inside.parents):
            yield root / folder, files


def _left(group: Path, files: _Files) -> int | None:
    """Bytes below a group's limit, counting cached files as free; None without a limit."""
    try:
        limit, used = (int((group / name).read_text(encoding="ascii")) for name in (files.limit, files.used))
        stat = dict(line.split() for line in lines_of((group / "memory.stat").read_text(encoding="ascii")))
    except (OSError, ValueError):
        # The root of version 2 has no such files, and a group without a limit says `max`.
        return None
    return max(limit - used + sum(int(stat.get(name, 0)) for name in files.cached), 0)
