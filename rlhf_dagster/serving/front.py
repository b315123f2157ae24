"""The front: an OpenAI-compatible server on loopback that passes requests on, and names the policy in each answer.

The policy's id is in the header ``X-RLHF-Policy`` and in the answer's ``model``. A request may name `champion` or the
policy that answers now; another one is refused, since it would not be the one that answers.
"""

import http.client
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.loop.inference.named_policy import CHAMPION
from rlhf_dagster.serving.backend import Backend
from rlhf_dagster.serving.switchboard import Switchboard

POLICY_HEADER = "X-RLHF-Policy"
PASSED_ON = ("/v1/chat/completions", "/v1/completions")
LARGEST_REQUEST = 16 * 2**20
"""Bytes."""
_EVENT = b"data: {"
_HOSTS = (LOOPBACK, "localhost")


class RefusedError(Exception):
    """A request that is not passed on: a status, and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class FrontServer(ThreadingHTTPServer):
    request_queue_size = 1024
    """Connections that wait to be taken; the default of 5 refuses some where many come at once."""
    daemon_threads = True


class FrontHandler(BaseHTTPRequestHandler):
    server_version, sys_version = "rlhf-serve", ""

    def __init__(self, board: Switchboard, named_to_backend: bool, *connection: object) -> None:
        self._board, self._named = board, named_to_backend
        super().__init__(*connection)  # type: ignore[arg-type]  # request, address and server, from the server

    def do_GET(self) -> None:
        policy_id = self._board.policy_id
        if self.path == "/health":
            self._reply(HTTPStatus.OK, {"status": "ok", "policy": policy_id}, policy_id)
        elif self.path == "/v1/models":
            models = [{"id": name, "object": "model", "owned_by": "rlhf_dagster"} for name in (CHAMPION, policy_id)]
            self._reply(HTTPStatus.OK, {"object": "list", "data": models}, policy_id)
        else:
            self._reply_error(HTTPStatus.NOT_FOUND, f"There is no {self.path} here.", policy_id)

    def do_POST(self) -> None:
        with self._board.backend() as backend:
            try:
                self._pass_on(backend, self._asked(backend))
            except RefusedError as refused:
                self._reply_error(refused.status, str(refused), backend.policy_id)
            except ConnectionError:
                self.close_connection = True  # who asked is gone

    def _asked(self, backend: Backend) -> bytes:
        """The request as the backend is to get it."""
        host = self.headers.get("Host", "").partition(":")[0]
        if host not in _HOSTS:  # a foreign page may have bound its name to us
            raise RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "Ask for 127.0.0.1 or localhost.")
        if self.path not in PASSED_ON:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"There is no {self.path} here; there are {', '.join(PASSED_ON)}.")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
        values = _json_object(self._body())
        wanted = values.pop("model", CHAMPION)
        if wanted not in (CHAMPION, backend.policy_id):
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{wanted} does not answer here; ask {CHAMPION}.")
        return json.dumps(values | ({"model": backend.policy_id} if self._named else {})).encode()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Say with Content-Length how long the request is.")
        if int(length) > LARGEST_REQUEST:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {LARGEST_REQUEST:,} bytes.")
        return self.rfile.read(int(length))

    def _pass_on(self, backend: Backend, body: bytes) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, backend.port)
        try:
            answer = _answered(connection, self.path, body)
            kind = answer.headers.get("Content-Type", "application/json")
            self._begin(answer.status, kind, backend.policy_id)
            for piece in _pieces(answer, kind, backend.policy_id):
                self.wfile.write(piece)
        finally:
            connection.close()

    def _reply_error(self, status: HTTPStatus, sentence: str, policy_id: str) -> None:
        self._reply(status, {"error": {"message": sentence, "type": status.phrase}}, policy_id)

    def _reply(self, status: HTTPStatus, content: dict[str, Any], policy_id: str) -> None:
        self._begin(status, "application/json", policy_id)
        self.wfile.write(json.dumps(content).encode())

    def _begin(self, status: int, kind: str, policy_id: str) -> None:
        """Status and headers; the end of the connection ends the content (HTTP/1.0)."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header(POLICY_HEADER, policy_id)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: they are their users'."""


def make_front(board: Switchboard, port: int, named_to_backend: bool) -> FrontServer:
    """The front on loopback; 0 takes a free port. ``named_to_backend``: the backend wants the policy's id."""
    return FrontServer((LOOPBACK, port), partial(FrontHandler, board, named_to_backend))


def _answered(connection: http.client.HTTPConnection, path: str, body: bytes) -> http.client.HTTPResponse:
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return connection.getresponse()
    except (OSError, http.client.HTTPException):
        raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "The server of this policy has ended; ask again.") from None


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The request is no JSON object.")
    return values


def _pieces(answer: http.client.HTTPResponse, kind: str, policy_id: str) -> Iterator[bytes]:
    """The content of an answer, piece by piece, with the policy's id as its model."""
    if not kind.startswith("text/event-stream"):
        yield _named(answer.read(), policy_id)
        return
    for line in answer:
        is_event = line.startswith(_EVENT)
        yield b"data: " + _named(line.removeprefix(b"data: ").rstrip(), policy_id) + b"\n" if is_event else line


def _named(content: bytes, policy_id: str) -> bytes:
    with suppress(ValueError):
        values = json.loads(content)
        if isinstance(values, dict) and "model" in values:
            return json.dumps(values | {"model": policy_id}, ensure_ascii=False).encode()
    return content
