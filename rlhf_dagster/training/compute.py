"""Threads and devices."""

import os

import torch

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.settings import ComputeSettings


def use_device(compute: ComputeSettings) -> torch.device:
    """Cap PyTorch's threads and return the device; raises UserError where CUDA is asked for and absent.

    More threads than free cores make small models many times slower: OMP_NUM_THREADS and the core count lower the cap.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(limit) if limit.isdigit() and int(limit) > 0 else os.cpu_count() or 1
    torch.set_num_threads(min(compute.threads, cores))
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is `cuda` but PyTorch finds no CUDA device; set it to `auto` or `cpu`.")
    use_cuda = compute.device != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_cuda else "cpu")
