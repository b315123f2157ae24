"""Dagster's web server behind a guard: it answers this machine's programs and its own pages, and no other web page.

    python -m rlhf_dagster.automation.web_server WORKSPACE PORT [--name NAME] [--host ADDRESS] [--pages PORT]

Dagster's server looks at neither `Host` nor `Origin`, and runs a mutation that comes by GET or as plain text. A page
that somebody has open in a browser on this machine could launch runs, wipe assets and delete rounds through it.
"""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any

from rlhf_dagster.common.http.arriving import stated_length
from rlhf_dagster.common.http.own_requests import OWN_NAMES, READING, Refusal, refusal
from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.pages.server import PAGES_PATH

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
Application = Callable[[_Message, _Receive, _Send], Awaitable[None]]
"""An ASGI application."""

QUERIES = "/graphql"
LARGEST_QUERY = 16 * 2**20
"""Bytes of a request."""
UI_HEADERS = (
    # No page of another origin holds the UI in a frame, or a handle on its window, or reads what is here.
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_LOGGER = "dagster-webserver"
_PAGE_SECONDS = 30.0
_OF_THE_CONNECTION = (b"server", b"date", b"connection")
_DATABASE_MILLISECONDS, _POOL_SECONDS, _POOL_OVERFLOW = 15000, 3600, 20
"""As Dagster's own command has them."""


class GuardedApp:
    """An ASGI application that is asked only what :func:`refusal` lets through, and queries by POST alone."""

    def __init__(self, app: Application, names: Sequence[str] = ()) -> None:
        """``names`` are host names under which it is asked besides those of this machine."""
        self._app, self._names = app, (*OWN_NAMES, *names)

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif refused := self._refusal(scope):
            await (_close(send) if scope["type"] == "websocket" else _answer(refused, send))
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: _Message) -> Refusal | None:
        websocket, method = scope["type"] == "websocket", scope.get("method", "GET")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        if refused := refusal(method, headers, self._names, websocket):
            return refused
        return None if websocket else _query_refusal(method, scope["path"], dict(headers))


class WithPages:
    """An ASGI application with a loop's pages below :data:`PAGES_PATH`, which it asks the loop's page server for.

    That server looks at requests as they were sent, and lets no script run in what it answers.
    """

    def __init__(self, app: Application, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        target = scope.get("raw_path", b"").decode("latin-1")
        if scope["type"] != "http" or scope["method"] not in READING or not target.startswith(f"{PAGES_PATH}/"):
            await self._app(scope, receive, send)
            return
        asked = target.removeprefix(PAGES_PATH)
        status, headers, body = await asyncio.to_thread(_page, self._port, scope["method"], asked)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _page(port: int, method: str, target: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the page server's answer."""
    connection = HTTPConnection(LOOPBACK, port, timeout=_PAGE_SECONDS)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.getheaders()]
        return answer.status, [one for one in headers if one[0] not in _OF_THE_CONNECTION], answer.read()
    except OSError:
        return _said(HTTPStatus.BAD_GATEWAY, "The page server does not answer; it is started again.")
    except (HTTPException, ValueError):  # a target that cannot be one
        return _said(HTTPStatus.NOT_FOUND, "There is no such page.")
    finally:
        connection.close()


def _said(status: HTTPStatus, sentence: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return int(status), [(b"content-type", b"text/plain; charset=utf-8")], sentence.encode() + b"\n"


def _query_refusal(method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
    """Why a request is not one of the UI's; header names are in small letters, as ASGI has them."""
    is_query = path.rstrip("/").endswith(QUERIES)
    if method in READING:
        # The page on which people write queries is at the same address.
        shows_page = "text/html" in headers.get("accept", "")
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Send queries by POST.") if is_query and not shows_page else None
    length = stated_length(headers.get("content-length", ""))
    if length is None or "transfer-encoding" in headers:
        return Refusal(HTTPStatus.LENGTH_REQUIRED, "Say with Content-Length how long the request is.")
    if length > LARGEST_QUERY:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {LARGEST_QUERY:,} bytes.")
    return None


def _with_headers(send: _Send) -> _Send:
    async def send_on(message: _Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *UI_HEADERS]
        await send(message)

    return send_on


async def _close(send: _Send) -> None:
    """Refuse a websocket before it is accepted: who asks gets status 403."""
    await send({"type": "websocket.close", "code": 1008})


async def _answer(refused: Refusal, send: _Send) -> None:
    body = refused.sentence.encode() + b"\n"
    kept = ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": int(refused.status), "headers": [*kept, *UI_HEADERS]})
    await send({"type": "http.response.body", "body": body})


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the UI of the instance in `$DAGSTER_HOME` until it is interrupted."""
    import dagster as dg
    import uvicorn
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._utils.log import configure_loggers
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    parser = argparse.ArgumentParser(prog="rlhf_dagster.automation.web_server", description=__doc__)
    parser.add_argument("workspace", help="the file that says where the code is (workspace.yaml)")
    parser.add_argument("port", type=int, help="port")
    parser.add_argument("--name", action="append", default=[], help="a host name under which a proxy asks")
    parser.add_argument("--pages", type=int, help=f"port of a loop's page server, to be had below {PAGES_PATH}")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen at, in a container 0.0.0.0; %(default)s")
    options = parser.parse_args(arguments)
    configure_loggers()
    target = WorkspaceFileTarget([options.workspace])
    with (
        suppress(KeyboardInterrupt),
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, version=__version__, workspace_load_target=target) as context,
    ):
        instance.optimize_for_webserver(_DATABASE_MILLISECONDS, _POOL_SECONDS, _POOL_OVERFLOW)
        logging.getLogger(_LOGGER).info(f"Serving {_LOGGER} behind a guard on http://{options.host}:{options.port}")
        dagster_app = create_app_from_workspace_process_context(context, lifespan=_lifespan)
        app: Application = WithPages(dagster_app, options.pages) if options.pages else dagster_app
        uvicorn.run(
            GuardedApp(app, options.name),
            host=options.host,
            port=options.port,
            log_level="warning",
            server_header=False,
        )


@asynccontextmanager
async def _lifespan(_: object) -> AsyncIterator[None]:
    with suppress(asyncio.CancelledError):  # when it is interrupted
        yield


if __name__ == "__main__":
    main()
