"""Requests as they arrive at a server of ours: how long one may take in all, and how large and deep it may be."""

import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedReader, RawIOBase
from socket import socket
from socketserver import StreamRequestHandler
from typing import Any

from rlhf_dagster.common.bounds.json_text import is_deeper_than, parse_json
from rlhf_dagster.common.bounds.limits import REQUEST_DEPTH, REQUEST_SECONDS
from rlhf_dagster.common.http.own_requests import Refusal

_DIGITS = 18


class TimedRequests(StreamRequestHandler):
    """Gives up a request that has not arrived in REQUEST_SECONDS, whatever its sender does between two bytes.

    Whoever takes nothing of an answer for as long is dropped, too.
    """

    def setup(self) -> None:
        super().setup()
        seconds = float(REQUEST_SECONDS.most)
        self.connection.settimeout(seconds)
        self.rfile = BufferedReader(_Arriving(self.connection, seconds))


class _Arriving(RawIOBase):
    """What a connection brings within ``seconds``; TimeoutError after them."""

    def __init__(self, connection: socket, seconds: float) -> None:
        self._connection, self._end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        usual, left = self._connection.gettimeout(), self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(usual)


def stated_length(header: str) -> int | None:
    """The bytes that a header `Content-Length` states; None where it states none."""
    return int(header) if header.isascii() and header.isdecimal() and len(header) <= _DIGITS else None


def json_object_of(request: BaseHTTPRequestHandler, most: int) -> dict[str, Any] | Refusal:
    """The JSON object that a request brings, of at most ``most`` bytes, or why it is not taken."""
    length = stated_length(request.headers.get("Content-Length", ""))
    if length is None:
        return Refusal(HTTPStatus.LENGTH_REQUIRED, "Say with Content-Length how long the request is.")
    if length > most:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A request has at most {most:,} bytes.")
    try:
        body = request.rfile.read(length)
    except TimeoutError:
        sentence = f"The request has not arrived in {REQUEST_SECONDS.most} s."
        return Refusal(HTTPStatus.REQUEST_TIMEOUT, sentence)
    return _json_object(body) if len(body) == length else Refusal(HTTPStatus.BAD_REQUEST, "The request is cut short.")


def _json_object(body: bytes) -> dict[str, Any] | Refusal:
    try:
        values = parse_json(body or b"{}")
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return Refusal(HTTPStatus.BAD_REQUEST, "The request is no JSON object.")
    if is_deeper_than(values, REQUEST_DEPTH.most):
        sentence = f"The request has more than {REQUEST_DEPTH.most} lists and objects within one another."
        return Refusal(HTTPStatus.BAD_REQUEST, sentence)
    return values
