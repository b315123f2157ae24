"""Memory that nobody uses any more, given back before the next part of a stage needs it."""

import ctypes
import gc
import os

import torch

_MMAP_THRESHOLD = -3
"""Number of `M_MMAP_THRESHOLD` in glibc's malloc.h."""
OWN_PAGES = 1 << 20
"""Bytes from which a block has pages of its own, which go back to the system when it is freed."""


def release_memory() -> None:
    """Free what is only held in circles, such as an optimiser and its schedule, also for others on a GPU."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def return_what_is_freed() -> None:
    """Have glibc give freed blocks of 1 MiB or more back to the system, for the rest of this process.

    By itself it raises that size up to 32 MB as blocks are freed, and smaller ones leave holes between layers that
    nothing else fits into: a training on a CPU then takes up to two and a half times what it uses. It costs calls of
    the system. What the environment says (MALLOC_MMAP_THRESHOLD_) stays. Other allocators have no use for it.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, OWN_PAGES)
