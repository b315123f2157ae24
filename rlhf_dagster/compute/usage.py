"""What a training costs: time, processor, memory, GPU-hours."""

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SAMPLE_EVERY = 2.0
"""Seconds between two looks at how busy the GPU is."""


@contextmanager
def measuring(cuda: bool, processes: int = 1) -> Iterator[dict[str, float]]:
    """Measures the block; at its end, the dict that it was given is filled.

    ``seconds``; ``cpu_utilisation`` in cores; ``peak_memory_gb`` of this process; on CUDA also ``peak_gpu_memory_gb``,
    ``gpu_utilisation`` (share of time in which the first device ran a kernel, where the driver says so) and
    ``gpu_hours`` of all ``processes``.
    """
    usage: dict[str, float] = {}
    began, cpu = time.monotonic(), _cpu_seconds()
    with _sampling_gpu(cuda) as samples:
        yield usage
    seconds = time.monotonic() - began
    usage["seconds"] = seconds
    usage["cpu_utilisation"] = (_cpu_seconds() - cpu) / max(seconds, 1e-9)
    usage["peak_memory_gb"] = _peak_bytes() / 1e9
    if cuda:
        import torch

        usage["peak_gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        usage["gpu_hours"] = processes * seconds / 3600
        if samples:
            usage["gpu_utilisation"] = sum(samples) / len(samples)


@contextmanager
def _sampling_gpu(cuda: bool) -> Iterator[list[float]]:
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        import torch

        while not done.wait(SAMPLE_EVERY):
            try:
                samples.append(torch.cuda.utilization() / 100)
            except (ImportError, RuntimeError, OSError):  # the driver's library is not there
                return

    watcher = threading.Thread(target=sample, daemon=True) if cuda else None
    if watcher:
        watcher.start()
    try:
        yield samples
    finally:
        done.set()
        if watcher:
            watcher.join()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_bytes() -> int:
    """Largest resident size of this process so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
