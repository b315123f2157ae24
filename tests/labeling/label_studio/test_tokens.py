"""A token goes to the server that it was given for, and to no other."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_dagster.common.child_processes import python_command
from rlhf_dagster.common.files import cache_folder
from rlhf_dagster.common.ports import strangers_at
from rlhf_dagster.config.labeling import LabelStoreSettings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.server import CREDENTIALS, SERVER_FOLDER
from rlhf_dagster.labeling.label_studio.tokens import ADDRESS_VARIABLE, KNOWN, token_for

VARIABLE = "LABEL_STUDIO_API_KEY"
HERE, ELSEWHERE = "https://labels.example", "https://evil.example"
LISTEN = (
    "import os, socket, sys; [os.setuid(int(uid)) for uid in sys.argv[1:]]; s = socket.create_server(('127.0.0.1', 0));"
    "print(s.getsockname()[1], flush=True); input()"
)


def store(url: str, **more: str) -> LabelStoreSettings:
    return LabelStoreSettings(kind="label_studio", url=url, **more)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, "a-token")
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)


@pytest.fixture
def strangers_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port on which another user of this machine listens."""
    other = ["65534"] if os.getuid() == 0 else []
    command = python_command("-c", LISTEN, *other)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    if not other:
        monkeypatch.setattr(os, "getuid", lambda: 54321)
    yield port
    process.kill()
    process.wait()


def test_a_token_goes_where_it_went_before(tmp_path: Path) -> None:
    assert token_for(store(HERE), tmp_path) == "a-token"
    assert token_for(store(f"{HERE}/below"), tmp_path) == "a-token"
    with pytest.raises(UserError, match=rf"went to {HERE} until now, and label_store.url is {ELSEWHERE}") as refused:
        token_for(store(ELSEWHERE), tmp_path)
    assert "a-token" not in str(refused.value)
    known = cache_folder() / KNOWN
    assert (known.stat().st_mode & 0o777, "a-token" in known.read_text()) == (0o600, False)


def test_its_owner_says_that_it_is_for_another_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_for(store(HERE), tmp_path)
    monkeypatch.setenv(ADDRESS_VARIABLE, f"{ELSEWHERE}/")
    assert token_for(store(ELSEWHERE), tmp_path) == "a-token"
    with pytest.raises(UserError, match=rf"is for {ELSEWHERE}, by LABEL_STUDIO_URL, and label_store.url is {HERE}"):
        token_for(store(HERE), tmp_path)
    monkeypatch.delenv(ADDRESS_VARIABLE)
    assert token_for(store(ELSEWHERE), tmp_path) == "a-token"


def test_each_token_has_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_for(store(HERE), tmp_path)
    monkeypatch.setenv(VARIABLE, "another-token")
    assert token_for(store(ELSEWHERE), tmp_path) == "another-token"


def test_where_nothing_can_be_kept_the_token_goes_where_the_loop_says(tmp_path, monkeypatch) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert token_for(store(HERE), tmp_path) == "a-token"
    (tmp_path / "cache").unlink()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / KNOWN).write_bytes(b"[" * 100_000)
    assert token_for(store(HERE), tmp_path) == "a-token"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PGPASSWORD", "HF_TOKEN", "SSH_AUTH_SOCK"])
def test_a_foreign_loop_can_name_no_other_secret(name: str) -> None:
    with pytest.raises(UserError, match=r"label_store.token_variable.+must have LABEL_STUDIO in its name, or begin"):
        LoopConfig.parse({"label_store": {"token_variable": name}}, "loop.yaml")
    for ours in ("LABEL_STUDIO_API_KEY", "TEAM_LABEL_STUDIO_TOKEN", "RLHF_LABELS"):
        LoopConfig.parse({"label_store": {"token_variable": ours}}, "loop.yaml")


@pytest.mark.skipif(sys.platform != "linux", reason="Whose a port is, Linux alone says.")
def test_a_port_of_another_user_gets_no_token(strangers_port: int, tmp_path: Path, monkeypatch) -> None:
    url = f"http://127.0.0.1:{strangers_port}"
    refused = rf"Another user of this machine \(uid \d+\) listens on port {strangers_port}, so the token is not sent"
    with pytest.raises(UserError, match=refused):
        token_for(store(url), tmp_path)
    monkeypatch.delenv(VARIABLE)
    (tmp_path / SERVER_FOLDER).mkdir()
    (tmp_path / SERVER_FOLDER / CREDENTIALS).write_text("LABEL_STUDIO_API_KEY=own\n")
    with pytest.raises(UserError, match=refused):
        token_for(store(url), tmp_path)


def test_an_own_port_gets_the_own_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert strangers_at(port) == set()
        with pytest.raises(UserError, match="There is no token for Label Studio"):
            token_for(store(f"http://127.0.0.1:{port}"), tmp_path)
        (tmp_path / SERVER_FOLDER).mkdir()
        (tmp_path / SERVER_FOLDER / CREDENTIALS).write_text("LABEL_STUDIO_API_KEY=own\n")
        assert token_for(store(f"http://127.0.0.1:{port}"), tmp_path) == "own"
        with pytest.raises(UserError, match="There is no token"):
            token_for(store(HERE), tmp_path)
