import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_server import S3Server

from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import open_store


@pytest.fixture(params=["local", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store of each kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    server: S3Server = request.getfixturevalue("s3")
    return f"s3://{server.new_bucket()}/loops/one"


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of files, each with its text."""

    def make(name: str, **files: str) -> Path:
        made = tmp_path / name
        for file, text in files.items():
            path = made / file.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return made

    return make
