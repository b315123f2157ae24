from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from rlhf_dagster.compute import free_memory as module
from rlhf_dagster.compute.free_memory import Free, free_memory, free_on_machine
from rlhf_dagster.config.training import ComputeSettings

CPU = ComputeSettings(device="cpu")
MIB = 1 << 20


class Planted:
    """Files that stand for those of Linux."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups = folder / "cgroup"

    def available(self, mib: int) -> None:
        others = "".join(f"{name}: 1 kB\n" for name in ("MemFree", "Buffers", "Cached", "Shmem", "Active", "Inactive"))
        (self.folder / "meminfo").write_text(
            f"MemTotal:  99999999 kB\nMemAvailable:   {mib * 1024} kB\n{others}Slab: 1 kB\n"
        )

    def in_groups(self, *lines: str) -> None:
        (self.folder / "own").write_text("".join(f"{line}\n" for line in lines))

    def v2(self, group: str, limit: str, used: int, stat: str = "anon 5\n") -> None:
        self._group(group, {"memory.max": limit, "memory.current": str(used), "memory.stat": stat})

    def v1(self, group: str, limit: int, used: int, stat: str = "cache 5\n") -> None:
        names = {"memory.limit_in_bytes": str(limit), "memory.usage_in_bytes": str(used), "memory.stat": stat}
        self._group(f"memory/{group}", names)

    def _group(self, group: str, files: dict[str, str]) -> None:
        folder = self.groups / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n" if not text.endswith("\n") else text)


@pytest.fixture
def linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planted:
    planted = Planted(tmp_path)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path), raising=False)
    monkeypatch.setattr(module, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(module, "GROUPS", planted.groups)
    return planted


def test_what_linux_says_is_available(linux: Planted) -> None:
    linux.available(300)
    assert free_on_machine() == 300 * MIB
    assert free_memory(CPU) == Free(300 * MIB, "this machine", shared=True)


def test_unknown_where_the_system_says_nothing(linux: Planted) -> None:
    assert free_on_machine() is None
    (linux.folder / "meminfo").write_text("MemTotal: 1 kB\n")
    linux.in_groups("0::/")
    assert free_on_machine() is None


def test_a_group_of_version_2_counts_cached_files_as_free(linux: Planted) -> None:
    linux.available(300)
    linux.in_groups("0::/job")
    linux.v2("job", str(100 * MIB), 90 * MIB, f"anon 7\ninactive_file {20 * MIB}\nactive_file {5 * MIB}\n")
    assert free_on_machine() == 35 * MIB


def test_the_tightest_of_nested_groups_counts(linux: Planted) -> None:
    linux.available(300)
    linux.in_groups("0::/a/b/c")
    linux.v2("a", str(50 * MIB), 10 * MIB)
    linux.v2("a/b", str(100 * MIB), 10 * MIB)
    linux.v2("a/b/c", "max", 10 * MIB)
    linux.v2("other", str(MIB), 0)
    assert free_on_machine() == 40 * MIB


@pytest.mark.parametrize("group", ["/", "/docker/0123", "/../.."])
def test_in_a_container_the_root_is_the_container(linux: Planted, group: str) -> None:
    linux.available(300)
    linux.in_groups(f"0::{group}")
    linux.v2("", str(100 * MIB), 40 * MIB)
    assert free_on_machine() == 60 * MIB


def test_a_group_of_version_1(linux: Planted) -> None:
    linux.available(300)
    linux.in_groups("9:name=systemd:/", "4:cpu,memory:/job", "1:cpu:/", "0::/")
    linux.v1("job", 100 * MIB, 90 * MIB, f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n")
    linux.v1("", 0x7FFFFFFFFFFFF000, 200 * MIB)
    assert free_on_machine() == 30 * MIB


def test_a_group_beyond_its_limit_leaves_nothing(linux: Planted) -> None:
    linux.available(300)
    linux.in_groups("0::/job")
    linux.v2("job", str(10 * MIB), 90 * MIB)
    assert free_on_machine() == 0


@pytest.mark.parametrize("listed", ["40000, Small\n80000, Large\n", "80000, Large\n40000, Small\n"])
def test_a_child_finds_the_emptiest_gpus(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(stdout=listed)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-abc")
    monkeypatch.setattr(module.subprocess, "run", run)
    one = ComputeSettings(launch="process")
    assert free_memory(one) == Free(80000 * MIB, "the GPU Large", shared=False)
    assert free_memory(one.changed(processes=2)) == Free(40000 * MIB, "the GPU Small", shared=False)
    assert asked[0][:3] == ["nvidia-smi", "-i", "1,GPU-abc"]
    # Fewer than are needed: the lease says so.
    assert free_memory(one.changed(processes=3)).bytes is None


def test_unknown_where_the_drivers_tool_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    monkeypatch.setenv("PATH", "")
    assert free_memory(ComputeSettings(launch="process")) == Free(None, "the GPU", shared=False)


def test_a_child_without_gpus_has_the_machine(linux: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    linux.available(300)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert free_memory(ComputeSettings(launch="process")) == Free(300 * MIB, "this machine", shared=True)


def test_in_process_what_pytorch_holds_and_does_not_use_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    numbers = {"is_available": True, "memory_reserved": 30, "memory_allocated": 10, "mem_get_info": (100, 200)}
    for name, value in {**numbers, "get_device_name": "G"}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    assert free_memory(ComputeSettings()) == Free(120, "the GPU G", shared=False)
