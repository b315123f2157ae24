"""Whether ranks sum a tensor: by NCCL on GPUs, by gloo elsewhere."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist


def nccl(device: str) -> dict[str, Any]:
    """Whether the ranks of this machine sum a tensor: by NCCL on GPUs, by gloo elsewhere."""
    backend, ranks = ("nccl", torch.cuda.device_count()) if device == "cuda" else ("gloo", 2)
    with TemporaryDirectory() as name:
        torch.multiprocessing.spawn(_sum, (ranks, name, backend), nprocs=ranks)
        sums = [float(Path(name, str(rank)).read_text()) for rank in range(ranks)]
    return {"backend": backend, "ranks": ranks, "equal": all(found == sum(range(ranks)) for found in sums)}


def _sum(rank: int, ranks: int, folder: str, backend: str) -> None:
    """On a rank: write the sum over all ranks of their numbers."""
    dist.init_process_group(backend, f"file://{folder}/meeting", rank=rank, world_size=ranks)
    tensor = torch.tensor([float(rank)], device=f"cuda:{rank}" if backend == "nccl" else "cpu")
    dist.all_reduce(tensor)
    Path(folder, str(rank)).write_text(str(float(tensor)))
    dist.destroy_process_group()
