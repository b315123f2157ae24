"""The guard before Dagster's web server: what it lets through, and what a forged request gets."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rlhf_dagster.automation.web_server import LARGEST_QUERY, UI_HEADERS, GuardedApp, WithPages
from rlhf_dagster.common.sealed import seal_page
from rlhf_dagster.pages.server import HEADERS, make_server

HOST = "127.0.0.1:3000"
OWN = {"host": HOST, "origin": f"http://{HOST}", "content-type": "application/json", "content-length": "2"}


def ask(headers: dict[str, str], method: str = "POST", path: str = "/graphql", kind: str = "http") -> tuple[Any, bool]:
    """What the guard sends first, and whether the application behind it was asked."""
    reached, sent = [], []

    async def app(scope, receive, send) -> None:
        reached.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": path, "headers": pairs} | ({"method": method} if kind == "http" else {})
    asyncio.run(GuardedApp(app, ["rlhf.example.org"])(scope, receive, send))
    return sent[0], bool(reached)


def test_queries_of_the_own_page_reach_dagster_and_come_back_with_our_headers() -> None:
    sent, reached = ask(OWN)
    assert reached
    assert {(b"x-own", b"1"), *UI_HEADERS} == set(sent["headers"])
    assert ask(OWN | {"host": "rlhf.example.org", "origin": "https://rlhf.example.org"})[1]


@pytest.mark.parametrize(
    ("status", "changes", "method"),
    [
        (421, {"host": "evil.example"}, "POST"),
        (403, {"origin": "http://evil.example"}, "POST"),
        (415, {"content-type": "text/plain"}, "POST"),
        (405, {}, "GET"),
        (405, {"accept": "*/*"}, "HEAD"),
        (413, {"content-length": str(LARGEST_QUERY + 1)}, "POST"),
        (411, {"transfer-encoding": "chunked"}, "POST"),
        (411, {"content-length": ""}, "POST"),
    ],
)
def test_a_forged_request_never_reaches_dagster(status, changes, method) -> None:
    sent, reached = ask(OWN | changes, method)
    assert (sent["status"], reached) == (status, False)


def test_a_query_by_get_is_refused_however_its_path_is_written() -> None:
    assert not ask(OWN, "GET", "/graphql/")[1]
    assert not ask(OWN, "GET", "/prefix/graphql")[1]
    assert ask(OWN, "GET", "/runs")[1]
    assert ask(OWN | {"accept": "text/html"}, "GET", "/graphql")[1], "the page on which people write queries"


def test_a_foreign_websocket_is_closed_before_it_is_accepted() -> None:
    assert ask({"host": HOST, "origin": f"http://{HOST}"}, kind="websocket")[1]
    sent, reached = ask({"host": HOST, "origin": "http://evil.example"}, kind="websocket")
    assert (sent["type"], reached) == ("websocket.close", False)


def test_the_lifespan_is_dagsters() -> None:
    assert ask({}, kind="lifespan")[1]


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[int]:
    """The port of the page server of a loop with a report and a secret."""
    reports = tmp_path / "assets" / "eval_report"
    reports.mkdir(parents=True)
    (reports / "round-0001.html").write_bytes(seal_page("<p>a report</p>"))
    (tmp_path / "loop.yaml").write_text("a secret")
    with make_server(str(tmp_path), 0) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


def visit(port: int, target: str, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the web server with a loop's pages; Dagster's own answer is 204."""
    sent: list[Any] = []

    async def dagster(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message) -> None:
        sent.append(message)

    raw = target.encode("latin-1")
    scope = {"type": "http", "method": method, "path": target, "raw_path": raw, "headers": [(b"host", HOST.encode())]}
    asyncio.run(GuardedApp(WithPages(dagster, port))(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_a_loop_s_pages_are_below_a_path_of_dagster_s_server(pages: int) -> None:
    status, headers, body = visit(pages, "/loop-pages/assets/eval_report/round-0001.html")
    assert (status, body[:15]) == (200, b"<p>a report</p>")
    assert headers[b"content-security-policy"].decode() == HEADERS["Content-Security-Policy"]
    assert dict(UI_HEADERS).items() <= headers.items()
    assert b"No rounds yet" in visit(pages, "/loop-pages/rounds.html")[2]
    assert visit(pages, "/loop-pages/rounds.html", "HEAD")[2] == b""


OTHERS = ["loop.yaml", "../loop.yaml", "%2e%2e/loop.yaml", "\u00e9", " x"]


@pytest.mark.parametrize("page", OTHERS)
def test_there_is_nothing_else_below_it(pages: int, page: str) -> None:
    status, _, body = visit(pages, f"/loop-pages/{page}")
    assert status in (400, 404)
    assert b"secret" not in body


@pytest.mark.parametrize("target", ["/loop-pages", "/", "/runs", "/loop-pages-of-others/rounds.html"])
def test_what_is_not_below_it_is_dagster_s(pages: int, target: str) -> None:
    assert visit(pages, target)[0] == 204


def test_a_page_server_that_is_away_is_said() -> None:
    status, _, body = visit(1, "/loop-pages/rounds.html")
    assert (status, body) == (502, b"The page server does not answer; it is started again.\n")
