"""File systems without hard links, with and without a renaming that takes only free names."""

import ctypes
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.common import files
from rlhf_dagster.lineage.registry import PolicyRegistry
from rlhf_dagster.lineage.stop_cord import pull, read_stop, reserve, reset, resumes
from rlhf_dagster.storage.local import LocalStore


class NoRename:
    """A C library whose renaming knows no flags, as on some network file systems."""

    @staticmethod
    def renameat2(*_: Any) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


class Older:
    """A C library without it."""


@pytest.fixture(
    params=[(errno.EPERM, None), (errno.EOPNOTSUPP, NoRename), (errno.EPERM, Older), (errno.ENOSYS, NoRename)],
    ids=["no links", "no links, no flags", "no links, older library", "no such call"],
)
def without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    number, library = request.param

    def link(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "link", link)
    if library is not None:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: library())


pytestmark = pytest.mark.usefixtures("without_links")


def test_a_key_is_created_once_and_never_half(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.create("a/b.json", b"one")
    assert not store.create("a/b.json", b"two")
    found = store.get("a/b.json")
    assert found is not None
    assert found.data == b"one"
    assert store.list() == ["a/b.json"]


def test_of_many_writers_at_once_one_wins(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for number in range(20):
        won: list[int] = []
        start = threading.Barrier(6)

        def write(writer: int, key: str = f"{number}.json", won: list[int] = won, start: Any = start) -> None:
            start.wait()
            if store.create(key, str(writer).encode()):
                won.append(writer)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = store.get(f"{number}.json")
        assert found is not None
        assert [found.data] == [str(writer).encode() for writer in won]


def test_the_loop_is_stopped_pinned_and_promoted(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    reserve(store)
    stop = pull(store, "Ada", "odd answers")
    assert read_stop(store) == stop
    assert reset(store, "Ben") == stop
    assert resumes(store) == 1
    registry = PolicyRegistry(store)
    for name in ("sft", "ppo"):
        registry.register(name, f"models/{name}", "sft", "")
    registry.set_initial("sft")
    assert registry.pin("round-0001") == "sft"
    assert registry.promote("ppo", "round-0001", "gate", "better").promoted
    assert registry.pin("round-0001") == "sft"
