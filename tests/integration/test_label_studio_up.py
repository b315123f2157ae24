"""`rlhf label-studio up` and `install`: the real server, as a person starts it, uses it and stops it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx
import pytest
from label_studio import free_port, require_label_studio
from loops import assert_one_sentence, rlhf, rlhf_here, write_loop

from rlhf_dagster.cli.label_studio import show
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio import server
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.session import AnnotatorSession
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.label_store import label_studio_client

pytestmark = pytest.mark.integration

LINES = 4
"""What `up` prints once the server is ready."""
OUR_OWN = {"DEBUG": "true", "HOST": "http://elsewhere.example.com", "http_proxy": "http://127.0.0.1:9", "CI": "true"}
"""Set for other programs; Label Studio would take the first two for settings of its own."""


@dataclass
class Up:
    """A running `rlhf label-studio up` (or `ui`)."""

    url: str
    folder: Path
    process: subprocess.Popen[str]
    printed: str = ""

    def stop(self, how: signal.Signals) -> tuple[int, str]:
        """Exit code, and what was printed after the first lines."""
        self.process.send_signal(how)
        rest, _ = self.process.communicate()
        return self.process.returncode, rest

    def credentials(self) -> dict[str, str]:
        return server.local_credentials(self.folder) or {}


def loop_at(folder: Path, port: int, **settings: object) -> Path:
    store = {"kind": "label_studio", "url": f"http://127.0.0.1:{port}", "simulated_annotators": False}
    return write_loop(folder, label_store=store | settings)


UNDER_WAY = ("Starting ", "Waiting for ")
"""What lines begin with that say what is waited for."""


@contextmanager
def up(loop: Path, *command: object, lines: int = LINES) -> Iterator[Up]:
    """The command, once it has printed ``lines`` lines; it and its server are gone afterwards."""
    require_label_studio()
    url = LoopFolder.open(loop).config.label_store.url
    arguments = [str(Path(sys.executable).with_name("rlhf")), *map(str, command), "--loop", str(loop)]
    environment = {name: value for name, value in os.environ.items() if name != "LABEL_STUDIO_API_KEY"}
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment | OUR_OWN
    )
    try:
        assert process.stdout is not None
        told = (line for line in process.stdout if not line.startswith(UNDER_WAY))
        printed = "".join(islice(told, lines))
        yield Up(url, loop / "label-studio", process, printed)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Up]:
    with up(loop_at(tmp_path_factory.mktemp("up") / "loop", free_port()), "label-studio", "up") as found:
        yield found


def is_up(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health").is_success
    return False


def test_it_says_where_the_server_is_how_to_log_in_and_what_to_do(running: Up) -> None:
    first, login, invite, following = running.printed.splitlines()
    assert f"small: {running.url} " in first
    assert "Ctrl-C" in first
    assert "admin@example.com" in login
    assert str(running.folder / "credentials.env") in login
    assert f"{running.url}/organization" in invite
    assert "rlhf run collect_round" in following


def test_what_it_says_is_true(running: Up) -> None:
    known = running.credentials()
    AnnotatorSession.login(running.url, known["LABEL_STUDIO_USERNAME"], known["LABEL_STUDIO_PASSWORD"]).close()
    client = LabelStudioClient(running.url, known["LABEL_STUDIO_API_KEY"])
    assert (client.check(), client.me()["email"]) == (server.VERSION, "admin@example.com")
    assert httpx.get(f"{running.url}/organization").status_code == 302  # to the login


def test_the_loop_finds_the_token_by_itself_and_the_environment_wins(running: Up, monkeypatch) -> None:
    loop = LoopFolder.open(running.folder.parent)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    assert label_studio_client(loop.config, loop.root).me()["email"] == "admin@example.com"
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "f" * 40)
    with pytest.raises(UserError, match="does not accept the token"):
        label_studio_client(loop.config, loop.root).me()


def test_secrets_are_in_private_files_and_not_printed(running: Up) -> None:
    known = running.credentials()
    invitation = LabelStudioClient(running.url, known["LABEL_STUDIO_API_KEY"]).invite_url()
    log = (running.folder / server.LOG).read_text(encoding="utf-8")
    for secret in (known["LABEL_STUDIO_PASSWORD"], known["LABEL_STUDIO_API_KEY"], invitation.partition("token=")[2]):
        assert len(secret) >= 12
        assert secret not in running.printed
        assert secret not in log
    modes = {path.name: path.stat().st_mode & 0o777 for path in (running.folder, *running.folder.iterdir())}
    assert modes["label-studio"] == 0o700
    assert {modes[name] for name in (server.CREDENTIALS, server.LOG, server.DATABASE, ".env")} == {0o600}


def test_it_answers_on_loopback_alone(running: Up) -> None:
    port = int(running.url.rpartition(":")[2])
    listening = [
        line.split() for table in ("tcp", "tcp6") for line in Path("/proc/net", table).read_text().splitlines()
    ]
    addresses = {entry[1] for entry in listening if entry[1].endswith(f":{port:04X}") and entry[3] == "0A"}
    assert addresses == {f"0100007F:{port:04X}"}


def test_pages_forbid_foreign_scripts_and_tell_nobody(running: Up) -> None:
    page = httpx.get(f"{running.url}/user/login/")
    assert "script-src" in page.headers["Content-Security-Policy"]
    assert "Content-Security-Policy-Report-Only" not in page.headers
    assert "sentry.io" not in page.text
    assert "tele.labelstud.io" not in page.text


def test_settings_meant_for_other_programs_do_not_reach_it(running: Up) -> None:
    assert "DEBUG = True" not in httpx.get(f"{running.url}/no-such-page").text
    assert "elsewhere.example.com" not in httpx.get(f"{running.url}/user/login/").text


def test_a_second_one_on_the_same_port_is_refused(running: Up) -> None:
    loop = running.folder.parent
    port = running.url.rpartition(":")[2]
    assert_one_sentence(rlhf("label-studio", "up", "--loop", loop), f"Port {port} of 127.0.0.1", "choose another port")
    assert is_up(running.url)


@pytest.mark.long
def test_it_ends_with_its_server_and_starts_again_with_its_data(tmp_path) -> None:
    """By Ctrl-C, by the second time where it was killed, and at last by SIGTERM."""
    loop = loop_at(tmp_path / "loop", free_port())
    with up(loop, "label-studio", "up") as first:
        client = LabelStudioClient(first.url, first.credentials()["LABEL_STUDIO_API_KEY"])
        project = client.create_project("kept", '<View><Text name="t" value="$t"/></View>', "", 1, "")
        key = (first.folder / server.SIGNING_KEY).read_bytes()
        assert first.stop(signal.SIGINT) == (0, "")
    assert not is_up(first.url)
    with up(loop, "label-studio", "up") as killed:
        killed.process.kill()
        killed.process.wait()
        while is_up(killed.url):
            pass
    with up(loop, "label-studio", "up") as second:
        assert [entry["id"] for entry in client.projects("kept")] == [project]
        assert second.credentials() == first.credentials()
        assert (second.folder / server.SIGNING_KEY).read_bytes() == key
        assert second.stop(signal.SIGTERM) == (0, "")
    assert not is_up(second.url)


@pytest.mark.parametrize("kept", ["SECRET_KEY=plain\n", "\nSECRET_KEY=p$ain\n\nSECRET_KEY=$other\n"])
def test_a_signing_key_that_label_studio_reads_stays(tmp_path, kept: str) -> None:
    require_label_studio()
    (tmp_path / server.SIGNING_KEY).write_text(kept)
    server.prepare(tmp_path)
    assert (tmp_path / server.SIGNING_KEY).read_text() == kept


@pytest.mark.parametrize("lost", ["", "\nSECRET_KEY=$drawn\n\nSECRET_KEY=$again\n"])
def test_a_signing_key_that_it_would_draw_again_is_made_once(tmp_path, lost: str) -> None:
    require_label_studio()
    (tmp_path / server.SIGNING_KEY).write_text(lost)
    server.prepare(tmp_path)
    made = (tmp_path / server.SIGNING_KEY).read_text()
    server.prepare(tmp_path)
    assert made.startswith("SECRET_KEY=")
    assert "$" not in made
    assert (tmp_path / server.SIGNING_KEY).read_text() == made


def test_another_port_than_the_loops_is_named_and_two_servers_have_secrets_of_their_own(running: Up, tmp_path) -> None:
    loop, port = loop_at(tmp_path / "loop", free_port()), free_port()
    with up(loop, "label-studio", "up", "--port", port) as other:
        url = f"http://127.0.0.1:{port}"
        assert is_up(url)
        assert f"label_store.url in {loop}/loop.yaml to {url}" in other.printed
        for name in (server.CREDENTIALS, ".env"):
            assert (other.folder / name).read_text() != (running.folder / name).read_text()
        with pytest.raises(UserError, match="does not accept the token"):
            LabelStudioClient(url, running.credentials()["LABEL_STUDIO_API_KEY"]).me()


def test_a_server_that_ends_by_itself_is_one_sentence(tmp_path) -> None:
    require_label_studio()
    loop, port = loop_at(tmp_path / "loop", free_port()), free_port()
    (loop / "label-studio").mkdir()
    (loop / "label-studio" / server.DATABASE).write_text("no database")
    result = rlhf("label-studio", "up", "--port", port, "--loop", loop)
    assert_one_sentence(result, "did not start", f"{loop}/label-studio/{server.LOG} says why")
    assert "DatabaseError" in (loop / "label-studio" / server.LOG).read_text()


def test_a_loop_whose_label_studio_is_elsewhere_is_refused(tmp_path) -> None:
    loop = loop_at(tmp_path / "loop", 80, url="https://labels.example.com")
    assert_one_sentence(
        rlhf_here("label-studio", "up", "--loop", loop), "https://labels.example.com", "not this machine"
    )
    assert not (loop / "label-studio").exists()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_one_sentence(tmp_path, port: int) -> None:
    require_label_studio()
    loop = loop_at(tmp_path / "loop", free_port())
    assert_one_sentence(rlhf("label-studio", "up", "--port", port, "--loop", loop), f"Port {port}", "another port")


def test_a_loop_with_the_embedded_store_is_told_what_to_change(tmp_path, capsys, monkeypatch) -> None:
    loop = LoopFolder.open(write_loop(tmp_path))
    folder = tmp_path / "label-studio"
    folder.mkdir()
    (folder / server.CREDENTIALS).write_text("LABEL_STUDIO_USERNAME=me@example.com\nLABEL_STUDIO_API_KEY=abc=\n")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "another")
    show(loop, server.Server("http://127.0.0.1:8080", None, folder))
    printed = capsys.readouterr().out
    assert "set label_store.kind to label_studio" in printed
    assert "LABEL_STUDIO_API_KEY is set, and used instead of this server's own token" in printed
    assert "another" not in printed.replace("another port", "")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc=")
    show(loop, server.Server("http://127.0.0.1:8080", None, folder))
    assert "used instead" not in capsys.readouterr().out


def test_a_folder_without_credentials_has_none(tmp_path) -> None:
    assert server.local_credentials(tmp_path) is None


def test_installing_again_does_nothing() -> None:
    require_label_studio()
    before = (server.environment_folder() / "install.log").stat().st_mtime_ns
    result = rlhf("label-studio", "install")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (server.environment_folder() / "install.log").stat().st_mtime_ns == before


def test_an_installation_that_fails_is_one_sentence_and_leaves_nothing_to_trust(tmp_path) -> None:
    offline = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "RLHF_CACHE": str(tmp_path)}
    result = rlhf("label-studio", "install", **offline)
    folder = tmp_path / f"label-studio-{server.VERSION}"
    assert_one_sentence(result, "could not be installed", f"{folder}/install.log says why")
    assert not (folder / "ready").exists()


def test_dagsters_ui_starts_it_too_and_stops_it(tmp_path) -> None:
    pytest.importorskip("dagster_webserver")
    loop, port = loop_at(tmp_path / "loop", free_port()), free_port()
    with up(loop, "ui", "--port", port, lines=2 + LINES) as found:
        assert f"Dagster UI of the loop small: http://127.0.0.1:{port}" in found.printed
        assert f"Label Studio of the loop small: {found.url}" in found.printed
        assert httpx.get(f"http://127.0.0.1:{port}/server_info").is_success
        assert is_up(found.url)
        assert found.stop(signal.SIGINT) == (0, "")
    assert not is_up(found.url)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.long
def test_dagsters_ui_leaves_a_server_alone_that_already_runs(running: Up) -> None:
    pytest.importorskip("dagster_webserver")
    with up(running.folder.parent, "ui", "--port", free_port(), lines=2) as found:
        assert found.stop(signal.SIGINT) == (0, "")
    assert is_up(running.url)
