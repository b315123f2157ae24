"""The page's server: on this machine alone, for whoever has the address that `rlhf label` prints.

The page itself holds no data. What it asks for goes with a token, which stands in the address behind ``#``, where
browsers send it to nobody, and must come from the page's own origin, as JSON.
"""

import hmac
import json
import secrets
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from threading import Lock
from typing import Any

from rlhf_dagster.common.http.arriving import TimedRequests, json_object_of
from rlhf_dagster.common.http.own_requests import Refusal, refusal
from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.errors import UserError
from rlhf_dagster.label_page.desk import Desk, command_after
from rlhf_dagster.labeling.forms import FLAGS

MOST_BYTES = 1 << 20
"""Bytes; a demonstration is the longest answer."""
TOKEN_HEADER = "X-Label-Token"  # noqa: S105

WHOLE_ADDRESS = "open the whole address that `rlhf label` prints."


class Refused(Exception):  # noqa: N818
    """A request that is not answered."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class LabelHandler(TimedRequests, BaseHTTPRequestHandler):
    server_version, sys_version = "rlhf-label", ""

    def __init__(self, desk: Desk, token: str, lock: Lock, *connection: object) -> None:
        self._desk, self._token, self._lock = desk, token, lock
        super().__init__(*connection)  # type: ignore[arg-type]  # request, address and server, from the server

    def do_GET(self) -> None:
        if refused := refusal(self.command, self.headers.items()):
            self.send_error(refused.status, refused.sentence)
        elif self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            self._send_page()

    def do_POST(self) -> None:
        try:
            answer = self._answer(self._asked())
        except Refused as refused:
            self._send_json(refused.status, {"error": str(refused)})
        except UserError as error:
            self._send_json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
        else:
            self._send_json(HTTPStatus.OK, answer)

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        key, seconds = asked.get("comparison_id"), asked.get("seconds")
        if key is not None and not isinstance(key, str):
            raise Refused(HTTPStatus.BAD_REQUEST, "`comparison_id` is not a text.")
        if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
            raise Refused(HTTPStatus.BAD_REQUEST, "`seconds` is not a number.")
        with self._lock:
            if self.path == "/answer" and key:
                self._desk.answer(key, asked.get("result"), seconds)
            elif self.path == "/skip" and key:
                self._desk.skip(key, seconds)
            elif self.path == "/question" and key:
                return self._shown(self._desk.question(key))
            elif self.path != "/next":
                raise Refused(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
            return self._shown(self._desk.next())

    def _shown(self, question: Any) -> dict[str, Any]:
        batches = self._desk.batches()
        batch = (question.round, question.purpose) if question else batches[-1] if batches else None
        return {
            "question": asdict(question) if question else None,
            "progress": asdict(self._desk.progress(batch)) if batch else None,
            "next_command": "" if question else command_after(self._desk.loop, batches),
            "loop": self._desk.loop.config.name,
            "annotator": self._desk.annotator,
            "instructions": self._desk.loop.config.labeling.instructions,
            "flags": list(FLAGS),
        }

    def _asked(self) -> dict[str, Any]:
        """The JSON of a request that may be made; raises Refused for any other."""
        self._require_own_page()
        asked = json_object_of(self, MOST_BYTES)
        if isinstance(asked, Refusal):
            raise Refused(*asked)
        return asked

    def _require_own_page(self) -> None:
        if refused := refusal(self.command, self.headers.items()):
            raise Refused(refused.status, refused.sentence)
        if not hmac.compare_digest(self.headers.get(TOKEN_HEADER, "").encode(), self._token.encode()):
            raise Refused(HTTPStatus.FORBIDDEN, f"The token is missing; {WHOLE_ADDRESS}")

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = resources.files("rlhf_dagster.label_page").joinpath("page.html").read_text(encoding="utf-8")
        self.send_response(HTTPStatus.OK)
        self.send_header(
            "Content-Security-Policy",
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        self._send("text/html; charset=utf-8", page.replace("NONCE", nonce).encode())

    def _send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self.send_response(status)
        self._send("application/json", json.dumps(content).encode())

    def _send(self, kind: str, body: bytes) -> None:
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def make_label_server(desk: Desk, port: int) -> tuple[ThreadingHTTPServer, str]:
    """A server of one person's page on the loopback address (port 0 takes a free one), and the address to open."""
    token = secrets.token_urlsafe(24)
    server = ThreadingHTTPServer((LOOPBACK, port), partial(LabelHandler, desk, token, Lock()))
    return server, f"http://{LOOPBACK}:{server.server_address[1]}/#{token}"
