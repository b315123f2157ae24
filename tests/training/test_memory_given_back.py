"""What a training that asks for memory before time frees on a CPU goes back to the system, and leaves no holes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOLES = """
from pathlib import Path
import torch
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.runtime.device import training_on

MB = 1 << 18  # numbers of 4 bytes

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

with training_on(ComputeSettings(device="cpu", threads=1, gradient_checkpointing={checkpointing})):
    {also}
    torch.zeros(24 * MB)  # glibc then keeps what is smaller than this
    before = held()
    kept, freed = [], []
    for _ in range(50):
        freed.append(torch.zeros(4 * MB))
        kept.append(torch.zeros(MB // 8))
    freed.clear()
    print(held() - before)
"""
CODES = """
    from rlhf_dagster.training.models.low_precision.quantised import quantise
    quantise(torch.nn.ModuleDict({"a": torch.nn.Linear(64, 64)}), ["a"], 4, torch.device("cpu"))
"""
ALL = 200 << 20
"""Bytes of what is freed."""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="Looks into /proc, which Linux alone has.")
@pytest.mark.parametrize("given", ["", "16777216"], ids=["by itself", "as the environment says"])
@pytest.mark.parametrize("asked", ["checkpointing", "a base in codes", ""])
def test_holes_are_left_only_where_time_comes_before_memory(asked: str, given: str) -> None:
    if asked == "a base in codes":
        pytest.importorskip("bitsandbytes")
    own = {name: value for name, value in os.environ.items() if name != "MALLOC_MMAP_THRESHOLD_"}
    also = CODES.strip() if asked == "a base in codes" else ""
    command = [sys.executable, "-c", HOLES.format(checkpointing=asked == "checkpointing", also=also)]
    environment = own | ({"MALLOC_MMAP_THRESHOLD_": given} if given else {})
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    if asked and not given:
        assert int(printed.split()[-1]) < ALL / 10
    else:
        assert int(printed.split()[-1]) > ALL / 2, "the allocator has no such holes, and this test shows nothing"
