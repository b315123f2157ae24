"""Memory that nobody uses any more, given back before the next part of a stage needs it."""

import gc

import torch


def release_memory() -> None:
    """Free what is only held in circles, such as an optimiser and its schedule, also for others on a GPU."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
