"""A disk without any room: the loop can be stopped, and what needs room fails in a sentence and changes nothing."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.registry import PolicyRegistry
from rlhf_dagster.lineage.stop_cord import STOPS, pull, read_stop, reserve, reset, resumes
from rlhf_dagster.storage.local import LocalStore

FILLER = "filler"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no `mount`")
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    made = subprocess.run(command, check=False, capture_output=True)
    if made.returncode:
        pytest.skip("a disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave not one block."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        for size in (1 << 12, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
    assert os.statvfs(disk).f_bavail == 0


def contents(disk: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in disk.rglob("*") if path.is_file() and path.name != FILLER}


def test_the_loop_is_stopped_and_goes_on_only_once_there_is_room(disk: Path) -> None:
    store = LocalStore(disk)
    reserve(store)
    PolicyRegistry(store).register("sft", "models/sft", "sft", "")
    fill(disk)
    stop = pull(store, "Ada", "odd\u2028answers")
    assert read_stop(store) == stop
    before = contents(disk)
    with pytest.raises(UserError, match=r"cannot write here \(No space left on device\); make room there"):
        reset(store, "Ben")
    assert read_stop(store) == stop
    assert contents(disk) == before
    with pytest.raises(UserError, match="No space left on device"):
        PolicyRegistry(store).set_initial("sft")
    assert PolicyRegistry(store).history() == []
    (disk / FILLER).unlink()
    assert reset(store, "Ben") == stop
    assert read_stop(store) is None
    assert resumes(store) == 1


def test_without_anything_set_aside_an_empty_file_stops(disk: Path) -> None:
    store = LocalStore(disk)
    fill(disk)
    pull(store, "Ada", "odd answers")
    assert read_stop(store) is not None
    assert not store.list(STOPS)


def test_a_second_stop_on_a_full_disk_leaves_the_first(disk: Path) -> None:
    store = LocalStore(disk)
    reserve(store)
    fill(disk)
    first = pull(store, "Ada", "one")
    assert pull(store, "Ben", "two") == first


def test_no_write_of_the_registry_is_half_done_or_raw(disk: Path) -> None:
    registry = PolicyRegistry(LocalStore(disk))
    for policy in ("sft", "ppo-1"):
        registry.register(policy, f"models/{policy}", "sft", "")
    registry.set_initial("sft")
    fill(disk)
    before = contents(disk)
    for write in (
        lambda: registry.register("ppo-2", "models/ppo-2", "ppo", "round-0001"),
        lambda: registry.pin("round-0001"),
        lambda: registry.promote("ppo-1", "round-0001", "gate", "better"),
        lambda: registry.approve("ppo-1", "round-0001", "Ada", "good"),
        lambda: registry.refuse("ppo-1", "round-0001", "Ada", "bad"),
        lambda: registry.rollback("ppo-1", "Ada", "odd"),
    ):
        with pytest.raises(UserError, match=r"No space left on device|never champion"):
            write()
    assert contents(disk) == before
    (disk / FILLER).unlink()
    assert registry.pin("round-0001") == "sft"
    assert registry.promote("ppo-1", "round-0001", "gate", "better").promoted
