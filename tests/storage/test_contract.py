"""What every store does: a folder, a bucket, and the memory of this process."""

import multiprocessing
import os
import pickle
import signal
from pathlib import Path
from typing import BinaryIO

import pytest

from benchmarks.race_stores import race
from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.base import read_with
from rlhf_dagster.storage.known import open_store

FEW, MANY = (4, 2), (12, 4)
"""Writers at once, and rounds."""


def test_what_is_put_is_found_and_replaced(store) -> None:
    assert store.get("a/b.json") is None
    assert not store.exists("a/b.json")
    store.put("a/b.json", b"one")
    first = store.get("a/b.json")
    assert first is not None
    assert first.data == b"one"
    store.put("a/b.json", b"two")
    second = store.get("a/b.json")
    assert second is not None
    assert (second.data, second.version == first.version) == (b"two", False)
    assert store.exists("a/b.json")


def test_an_object_is_created_once(store) -> None:
    assert store.create("pin", b"mine")
    assert not store.create("pin", b"yours")
    found = store.get("pin")
    assert found is not None
    assert found.data == b"mine"


def test_an_object_is_replaced_only_while_it_is_as_it_was_read(store) -> None:
    store.put("x", b"one")
    version = store.get("x").version
    assert store.replace("x", b"two", version)
    assert not store.replace("x", b"three", version)
    assert store.get("x").data == b"two"
    assert not store.replace("missing", b"one", version)
    assert store.get("missing") is None


def test_keys_are_listed_sorted_by_folder(store) -> None:
    for key in ("models/b/x", "models/a/y", "models-of-others/z", "top"):
        store.put(key, b"")
    assert store.list("models") == ["models/a/y", "models/b/x"]
    assert store.list("models/a") == ["models/a/y"]
    assert store.list() == ["models-of-others/z", "models/a/y", "models/b/x", "top"]
    assert store.list("nothing") == []


def test_more_keys_than_a_service_lists_at_once(store) -> None:
    keys = [f"many/{number:04}" for number in range(1030)]
    for key in keys:
        store.put(key, b"x")
    assert store.list("many") == keys


def test_reading_seeks_and_a_local_file_holds_the_same(store) -> None:
    data = os.urandom(3 << 20)
    store.put("big", data)
    with store.open("big") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(1 << 20)
        assert file.read(7) == data[1 << 20 : (1 << 20) + 7]
    assert store.local("big").read_bytes() == data
    store.put("big", b"other")
    assert store.local("big").read_bytes() == b"other"


def test_a_reader_never_mixes_what_was_there_with_what_took_its_place(store) -> None:
    old, new = os.urandom(3 << 20), os.urandom(2 << 20)
    store.put("big", old)
    turns = []

    def halves(file: BinaryIO) -> bytes:
        first = file.read(1 << 20)
        if not turns:
            store.put("big", new)
        turns.append(first)
        file.seek(1 << 20)
        return first + file.read()

    assert read_with(store, "big", halves) in (old, new)
    assert turns[0] == old[: 1 << 20]
    assert read_with(store, "big", halves) == new


@pytest.mark.parametrize("verb", ["open", "local"])
def test_what_is_not_there_cannot_be_read(store, verb: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(store, verb)("nothing")


def test_a_folder_is_uploaded_whole_and_takes_the_place_of_the_old_one(store, folder, tmp_path) -> None:
    store.upload(folder("new", manifest_json="1", deep__weights="w", old="x"), "models/m")
    store.upload(folder("newer", manifest_json="2", deep__weights="v"), "models/m")
    assert store.list("models") == ["models/m/deep/weights", "models/m/manifest.json"]
    store.download("models/m", tmp_path / "copy")
    assert (tmp_path / "copy" / "manifest.json").read_text() == "2"
    assert (tmp_path / "copy" / "deep" / "weights").read_text() == "v"


def test_deleting_takes_objects_and_folders(store, folder) -> None:
    store.upload(folder("new", manifest_json="1", weights="w"), "models/m")
    store.put("models/n/x", b"")
    store.delete("models/m")
    assert store.list("models") == ["models/n/x"]
    store.delete("models/n/x")
    store.delete("models/n/x")
    store.delete("nothing")
    assert store.list() == []


@pytest.mark.parametrize("key", ["", "/", "../x", "a/../b", "a//b", "/etc/passwd", "a/./b", "a\0b"])
def test_a_key_that_leads_elsewhere_is_refused(store, key: str) -> None:
    for call in (store.get, store.exists, lambda name: store.put(name, b""), lambda name: store.create(name, b"")):
        with pytest.raises(UserError, match="cannot be the name"):
            call(key)


def test_a_store_crosses_to_another_process_by_pickle_and_by_address(store) -> None:
    store.put("x", b"there")
    assert open_store(store.address).get("x").data == b"there"
    if not store.address.startswith("memory"):
        assert pickle.loads(pickle.dumps(store)).get("x").data == b"there"


def test_the_service_s_own_names_are_not_listed(store) -> None:
    store.put("folder/.half", b"")
    store.put("folder/whole", b"")
    assert store.list("folder") == ["folder/whole"]


@pytest.mark.parametrize("size", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_of_writers_at_once_one_wins_and_nothing_is_lost(address, size) -> None:
    """A pin, a promotion, an append and a counter, by many processes at once, round after round."""
    if address.startswith("memory"):
        pytest.skip("the memory of one process is not shared with others")
    assert race(address, *size) == []


def test_of_twelve_writers_in_a_folder_one_wins(tmp_path: Path) -> None:
    assert race(str(tmp_path / "store"), *MANY) == []


def test_a_race_ends_where_a_writer_does(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "pins").write_text("a file where the folder belongs")
    said = race(str(tmp_path / "store"), writers=2, rounds=1)
    assert said
    assert all("ended with" in sentence for sentence in said)


def _upload_until_killed(address: str, folder: Path) -> None:
    store = open_store(address)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    store.upload(folder, "models/m")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_upload_leaves_no_manifest_without_its_files(address, folder) -> None:
    if address.startswith("memory"):
        pytest.skip("the memory of one process is not shared with others")
    names = {f"part{number:03}": "x" * 1000 for number in range(200)}
    worker = multiprocessing.get_context("spawn").Process(
        target=_upload_until_killed, args=(address, folder("new", manifest_json="{}", **names))
    )
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    there = open_store(address).list("models/m")
    if "models/m/manifest.json" in there:
        assert len(there) == len(names) + 1


def test_an_address_of_no_kind_is_refused() -> None:
    with pytest.raises(UserError, match="s3://, gs://, az://"):
        open_store("ftp://host/loop")


def test_a_service_that_gives_no_answer_is_one_sentence(monkeypatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with pytest.raises(UserError, match="gives no answer") as refused:
        open_store("s3://nowhere-at-all/loop").get("x")
    assert "very-secret" not in str(refused.value)
