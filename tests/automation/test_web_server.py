"""The guard before Dagster's web server: what it lets through, and what a forged request gets."""

import asyncio
from typing import Any

import pytest

from rlhf_dagster.automation.web_server import LARGEST_QUERY, UI_HEADERS, GuardedApp

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
