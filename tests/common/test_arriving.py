"""Requests that arrive slowly, cut short, too large or too deep, at a server of ours."""

import json
import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from rlhf_dagster.common.http.arriving import TimedRequests, json_object_of, stated_length
from rlhf_dagster.common.http.own_requests import Refusal
from rlhf_dagster.common.ports import LOOPBACK


class Echo(TimedRequests, BaseHTTPRequestHandler):
    """Answers with what it read, or why it did not."""

    def do_POST(self) -> None:
        found = json_object_of(self, 1000)
        status = found.status if isinstance(found, Refusal) else HTTPStatus.OK
        self.send_response(status)
        self.end_headers()
        self.wfile.write((found.sentence if isinstance(found, Refusal) else json.dumps(found)).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer((LOOPBACK, 0), Echo) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def post(port: int, body: bytes, length: object = None, pieces: int = 1, pause: float = 0.0) -> str:
    """What is answered to a request that is sent in pieces; its end where it is shorter than it says."""
    head = f"POST / HTTP/1.0\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode()
    with socket.create_connection((LOOPBACK, port)) as sender:
        sender.sendall(head)
        size = -(-len(body) // pieces) or 1
        try:
            for start in range(0, len(body), size):
                sender.sendall(body[start : start + size])
                time.sleep(pause)
            sender.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has answered already
        return sender.makefile("rb").read().decode()


@pytest.mark.parametrize(
    ("body", "length", "status", "said"),
    [
        (b'{"a": [1]}', None, 200, '{"a": [1]}'),
        (b"", None, 200, "{}"),
        (b"[1]", None, 400, "The request is no JSON object."),
        (b'{"a": ' * 150, None, 400, "The request is no JSON object."),
        (b'{"a": ' * 100 + b"1" + b"}" * 100, None, 200, '{"a"'),
        (b'{"a":' + b"[" * 101 + b"]" * 101 + b"}", None, 400, "more than 100 lists and objects within one another."),
        (b"{}", 3, 400, "The request is cut short."),
        (b"{}", 1001, 413, "A request has at most 1,000 bytes."),
        (b"{}", "9" * 5000, 411, "Say with Content-Length"),
        (b"{}", "-1", 411, "Say with Content-Length"),
        (b"{}", "\xb2", 411, "Say with Content-Length"),
    ],
)
def test_what_a_request_brings_is_taken_or_refused_in_a_sentence(
    port: int, body: bytes, length: object, status: int, said: str
) -> None:
    answer = post(port, body, length)
    assert answer.split()[1] == str(status)
    assert said in answer


def test_a_slow_request_is_given_up_however_its_bytes_are_spread(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_LIMIT_REQUEST_SECONDS", "1")
    answer = post(port, b" " * 40, pieces=40, pause=0.04)
    assert answer.endswith("The request has not arrived in 1 s.")
    assert answer.split()[1] == "408"


def test_a_length_is_digits_and_no_more_than_a_disk_has_bytes() -> None:
    assert [stated_length(text) for text in ("0", "17", "", " 1", "1.", "\u0663", "9" * 19)] == [0, 17, *[None] * 5]
