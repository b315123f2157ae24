"""The front: an OpenAI-compatible server on loopback that passes requests on, and names the policy in each answer.

The policy's id is in the header ``X-RLHF-Policy`` and in the answer's ``model``. A request may name `champion` or the
policy that answers now; another one is refused, since it would not be the one that answers. Where a log is kept, each
answer has an id of its own, under which thumbs for it are taken.
"""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.bounds.limits import MEBIBYTE, REQUEST_MIB
from rlhf_dagster.common.http.arriving import TimedRequests, json_object_of
from rlhf_dagster.common.http.own_requests import Refusal, refusal
from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.loop.inference.named_policy import CHAMPION
from rlhf_dagster.serving.backend import Backend
from rlhf_dagster.serving.exchange import ABOUT_THE_USER, Exchange, user_of
from rlhf_dagster.serving.log import ConversationLog
from rlhf_dagster.serving.switchboard import Switchboard

POLICY_HEADER = "X-RLHF-Policy"
PASSED_ON = ("/v1/chat/completions", "/v1/completions")
_FEEDBACK = "/v1/feedback"
_EVENT = b"data: {"
_RESPONSE_ID = re.compile(r"(chatcmpl|cmpl)-[0-9a-f]{32}")


class RefusedError(Exception):
    """A request that is not passed on: a status, and a sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class FrontServer(ThreadingHTTPServer):
    request_queue_size = 1024
    """Connections that wait to be taken; the default of 5 refuses some where many come at once."""
    daemon_threads = True


class FrontHandler(TimedRequests, BaseHTTPRequestHandler):
    server_version, sys_version = "rlhf-serve", ""

    def __init__(
        self, board: Switchboard, named_to_backend: bool, log: ConversationLog | None, *connection: object
    ) -> None:
        self._board, self._named, self._log = board, named_to_backend, log
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
        try:
            # A policy is held by nobody whose request has not arrived: it could not give way to another one.
            values = self._asked()
            with self._board.backend() as backend:
                self._answer(values, backend)
        except RefusedError as refused:
            self._reply_error(refused.status, str(refused), self._board.policy_id)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # who asked is gone, or takes no answer

    def _answer(self, values: dict[str, Any], backend: Backend) -> None:
        try:
            if self.path == _FEEDBACK:
                self._take_thumbs(values, backend.policy_id)
            else:
                self._pass_on(backend, values)
        except RefusedError as refused:
            self._reply_error(refused.status, str(refused), backend.policy_id)

    def _asked(self) -> dict[str, Any]:
        """What is asked, from somebody who may ask it here."""
        if refused := refusal(self.command, self.headers.items()):
            raise RefusedError(*refused)
        known = PASSED_ON if self._log is None else (*PASSED_ON, _FEEDBACK)
        if self.path not in known:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"There is no {self.path} here; there are {', '.join(known)}.")
        values = json_object_of(self, REQUEST_MIB.most * MEBIBYTE)
        if isinstance(values, Refusal):
            raise RefusedError(*values)
        return values

    def _for_backend(self, values: dict[str, Any], backend: Backend) -> bytes:
        """The request as the backend is to get it."""
        wanted = values.get("model", CHAMPION)
        if wanted not in (CHAMPION, backend.policy_id):
            raise RefusedError(HTTPStatus.NOT_FOUND, f"{wanted} does not answer here; ask {CHAMPION}.")
        passed = {key: value for key, value in values.items() if key not in ("model", *ABOUT_THE_USER)}
        return json.dumps(passed | ({"model": backend.policy_id} if self._named else {})).encode()

    def _pass_on(self, backend: Backend, values: dict[str, Any]) -> None:
        body, connection = self._for_backend(values, backend), http.client.HTTPConnection(LOOPBACK, backend.port)
        exchange = Exchange.of(self.path, backend.policy_id, values)
        try:
            answer = _answered(connection, self.path, body)
            kind = answer.headers.get("Content-Type", "application/json")
            self._begin(answer.status, kind, backend.policy_id)
            with self._logged(exchange, answer.status):
                for piece in _pieces(answer, kind, exchange, heard=self._log is not None):
                    self.wfile.write(piece)
        finally:
            connection.close()

    @contextmanager
    def _logged(self, exchange: Exchange, status: int) -> Iterator[None]:
        """Log what was answered in the block, also where whoever asked has gone before the end."""
        try:
            yield
        finally:
            if self._log is not None and status == HTTPStatus.OK:
                self._log.conversation(exchange.line(), exchange.user)

    def _take_thumbs(self, values: dict[str, Any], policy_id: str) -> None:
        response_id, thumbs, choice = values.get("id"), values.get("thumbs"), values.get("choice", 0)
        if not isinstance(response_id, str) or not _RESPONSE_ID.fullmatch(response_id):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "`id` is to be that of a response of this server.")
        if thumbs not in ("up", "down") or type(choice) is not int or choice < 0:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "`thumbs` is to be `up` or `down`, and `choice` a number from 0."
            )
        if self._log is not None:
            self._log.thumbs(response_id, choice, thumbs == "up", user_of(values))
        self._reply(HTTPStatus.OK, {"id": response_id, "thumbs": thumbs}, policy_id)

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
        """Addresses are not logged, nor is anything else but for the log that was asked for."""


def make_front(
    board: Switchboard, port: int, named_to_backend: bool, log: ConversationLog | None = None
) -> FrontServer:
    """The front on loopback; 0 takes a free port. ``named_to_backend``: the backend wants the policy's id.

    Without a ``log`` nothing of what is asked and answered is kept.
    """
    return FrontServer((LOOPBACK, port), partial(FrontHandler, board, named_to_backend, log))


def _answered(connection: http.client.HTTPConnection, path: str, body: bytes) -> http.client.HTTPResponse:
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return connection.getresponse()
    except (OSError, http.client.HTTPException):
        raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "The server of this policy has ended; ask again.") from None


def _pieces(answer: http.client.HTTPResponse, kind: str, exchange: Exchange, heard: bool) -> Iterator[bytes]:
    """The content of an answer, piece by piece, with the policy's id as its model; ``heard`` by the exchange or not."""
    if not kind.startswith("text/event-stream"):
        yield _named(answer.read(), exchange, heard)
        return
    for line in answer:
        is_event = line.startswith(_EVENT)
        content = line.removeprefix(b"data: ").rstrip()
        yield b"data: " + _named(content, exchange, heard) + b"\n" if is_event else line


def _named(content: bytes, exchange: Exchange, heard: bool) -> bytes:
    """An answer or an event as ours; one that is heard has an id of ours, by which thumbs find it."""
    with suppress(ValueError):
        values = parse_json(content)
        if isinstance(values, dict) and "model" in values:
            ours = {"model": exchange.policy_id}
            if heard:
                exchange.hear(values)
                ours["id"] = exchange.response_id
            return json.dumps(values | ours, ensure_ascii=False).encode()
    return content
