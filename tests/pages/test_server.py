"""The page server: it serves a loop's pages, and nothing else that lies in the loop's folder."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.pages.server import make_server

SECRET = b"token-of-the-label-server"
ROUNDS, REPORT = b"<p>all rounds</p>", b"<p>one report</p>"
LINKS = ("linked.html", "broken.html")


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop's folder with what lies in one, every file but the pages holding the secret."""
    folder = tmp_path_factory.mktemp("place")
    root, reports = folder / "loop", folder / "loop/assets/eval_report"
    reports.mkdir(parents=True)
    (root / "rounds.html").write_bytes(ROUNDS)
    (reports / "round-0001.html").write_bytes(REPORT)
    for name in ("loop.yaml", "STOP", ".env", "label_store.sqlite", "index.html", "assets/prompts.parquet"):
        (root / name).write_bytes(SECRET)
    for name in ("round-0001.json", ".hidden.html", "round-0001.html.tmp", "html"):
        (reports / name).write_bytes(SECRET)
    (folder / "outside.html").write_bytes(SECRET)
    (reports / "folder.html").mkdir()
    (reports / "folder.html/inside.html").write_bytes(SECRET)
    (reports / LINKS[0]).symlink_to(root / "loop.yaml")
    (reports / LINKS[1]).symlink_to(root / "nothing")
    os.mkfifo(reports / "pipe.html")
    return root


@pytest.fixture(scope="module")
def port(loop: Path) -> Iterator[int]:
    with serving(loop) as port:
        yield port


class serving:  # noqa: N801  # used as a statement
    """A server of ``root`` in a thread of its own."""

    def __init__(self, root: Path) -> None:
        self.server = make_server(str(root), 0)

    def __enter__(self) -> int:
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self.server.server_port

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def ask(port: int, target: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content; the target goes out as it is."""
    connection = http.client.HTTPConnection(LOOPBACK, port)
    connection.putrequest(method, "/", skip_host=True)
    connection._buffer[0] = f"{method} {target} HTTP/1.1".encode("latin-1", "replace")  # type: ignore[attr-defined]
    connection.putheader("Host", host or f"{LOOPBACK}:{port}")
    connection.endheaders()
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), content


@pytest.mark.parametrize(
    ("target", "content"),
    [
        ("/", ROUNDS),
        ("/rounds.html", ROUNDS),
        ("/rounds.html?fresh=1", ROUNDS),
        ("/assets/eval_report/round-0001.html", REPORT),
    ],
)
def test_pages_are_served(port, target, content) -> None:
    status, headers, found = ask(port, target)
    assert (status, found) == (200, content)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert ask(port, target, "HEAD")[::2] == (200, b"")
    assert ask(port, target, "HEAD")[1]["Content-Length"] == str(len(content))


NOT_SERVED = [
    "/.",
    "/..",
    "/index.html",
    "/loop.yaml",
    "/STOP",
    "/.env",
    "/label_store.sqlite",
    "/assets",
    "/assets/",
    "/assets/prompts.parquet",
    "/assets/eval_report",
    "/assets/eval_report/",
    "/assets/eval_report/round-0001.json",
    "/assets/eval_report/round-0001.html/",
    "/assets/eval_report/round-0001.html.tmp",
    "/assets/eval_report/round-0002.html",
    "/assets/eval_report/.hidden.html",
    "/assets/eval_report/html",
    "/assets/eval_report/folder.html",
    "/assets/eval_report/folder.html/inside.html",
    "/assets/eval_report/linked.html",
    "/assets/eval_report/broken.html",
    "/assets/eval_report/pipe.html",
    "/assets/eval_report/../../loop.yaml",
    "/assets/eval_report/../../../outside.html",
    "/assets/eval_report/..%2f..%2floop.yaml",
    "/assets/eval_report/%2e%2e/%2e%2e/%2e%2e/outside.html",
    "/assets/eval_report/%252e%252e/%252e%252e/loop.yaml",
    "/assets/eval_report/..\\..\\loop.yaml",
    "/assets/eval_report/..html",
    "/assets/eval_report//round-0001.html",
    "/assets/./eval_report/round-0001.html",
    "/assets/eval_report/round-0001.html%00",
    "/assets/eval_report/round-0001.html;x.html",
    "/rounds.html/../loop.yaml",
    "/%72ounds.html",
    "/../outside.html",
    "//etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1/loop.yaml",
]


@pytest.mark.parametrize("target", NOT_SERVED)
def test_nothing_else_is_served(port, target) -> None:
    status, _, content = ask(port, target)
    assert status in (400, 404)
    assert SECRET not in content
    assert "root:" not in content.decode()


PARTS = st.sampled_from(
    ["..", ".", "", "%2e%2e", "%2f", "assets", "eval_report", "round-0001.html", "loop.yaml", "outside.html", "\\", "~"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARTS, max_size=7).map("/".join))
@example("assets/eval_report/../../loop.yaml")
def test_no_path_made_of_such_parts_reaches_anything_else(port, path) -> None:
    status, _, content = ask(port, f"/{path}")
    pages = {"": ROUNDS, "assets/eval_report/round-0001.html": REPORT}
    if path.lstrip("/") in pages:
        assert (status, content) == (200, pages[path.lstrip("/")])
    else:
        assert status in (400, 404)
        assert SECRET not in content


@pytest.mark.parametrize("link", ["rounds.html", "assets", "assets/eval_report"])
def test_links_are_not_followed_wherever_they_are(loop, tmp_path, link) -> None:
    target = tmp_path / "loop"
    (target / link).parent.mkdir(parents=True)
    (target / link).symlink_to(loop / link)
    with serving(target) as port:
        assert ask(port, "/")[2] != ROUNDS
        assert ask(port, "/assets/eval_report/round-0001.html")[0] == 404


def test_the_loop_itself_may_be_reached_through_a_link(loop, tmp_path) -> None:
    (tmp_path / "link").symlink_to(loop)
    with serving(tmp_path / "link") as port:
        assert ask(port, "/")[2] == ROUNDS


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_pages_can_only_be_read(port, method) -> None:
    assert ask(port, "/rounds.html", method)[0] == 501


@pytest.mark.parametrize(("target", "status"), [("/", 200), ("/loop.yaml", 404)])
def test_every_answer_forbids_scripts_and_other_sources(port, target, status) -> None:
    found, headers, _ = ask(port, target)
    assert found == status
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["style-src"], policy["img-src"]) == ("'unsafe-inline'", "data:")
    assert "script-src" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("rebound.example:80", 421), ("127.0.0.1.example", 421), ("[", 421)],
)
def test_only_this_machines_names_are_answered(port, host, status) -> None:
    assert ask(port, "/", host=host)[0] == status


def test_before_the_first_run_the_page_says_so(tmp_path) -> None:
    with serving(tmp_path) as port:
        status, _, content = ask(port, "/")
        assert status == 200
        assert b"written after the first run" in content
        assert ask(port, "/assets/eval_report/round-0001.html")[0] == 404
        (tmp_path / "rounds.html").write_bytes(ROUNDS)
        assert ask(port, "/")[2] == ROUNDS


def command(*arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "rlhf_dagster.pages.server", *map(str, arguments)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True)


def test_the_command_listens_on_loopback_alone_and_ends_when_asked(loop) -> None:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    process = command(loop, port)
    try:
        while True:
            assert process.poll() is None
            try:
                assert ask(port, "/")[2] == ROUNDS
                break
            except ConnectionRefusedError:
                continue
        assert listening_addresses(port) == {"0100007F"}
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[1] == ""
        assert process.returncode == 0
    finally:
        process.kill()


def listening_addresses(port: int) -> set[str]:
    """Local addresses (hexadecimal, as the kernel lists them) that listen on a port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {line[1].split(":")[0] for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}


@pytest.mark.parametrize(
    ("root", "port", "message"), [("nowhere", "0", "nowhere is not a folder"), (".", "70000", "70000")]
)
def test_wrong_arguments_are_one_sentence(root, port, message) -> None:
    process = command(root, port)
    error = process.communicate()[1]
    assert process.returncode == 2
    assert re.search(f"error: .*{message}", error)
    assert "Traceback" not in error
