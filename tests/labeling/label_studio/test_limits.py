"""A server that answers a byte at a time, or without an end."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from rlhf_dagster.common.http import limits as http_limits
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.session import AnnotatorSession
from rlhf_dagster.labeling.label_studio.transport.errors import (
    LabelStudioError,
    LabelStudioNonsense,
    LabelStudioTimeout,
)

TOKEN = "0123456789abcdef0123456789abcdef01234567"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"


@contextmanager
def talking(talk: Callable[[socket.socket, Event], None]) -> Iterator[str]:
    """A server that says what ``talk`` sends to every client, until the end."""
    over = Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not over.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                with client:
                    try:
                        talk(client, over)
                    except OSError:
                        continue

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def drip(client: socket.socket, over: Event, text: bytes) -> None:
    for byte in text * 1000:
        if over.wait(0.05):
            return
        client.sendall(bytes([byte]))


def in_the_head(client: socket.socket, over: Event) -> None:
    drip(client, over, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000)


def in_the_body(client: socket.socket, over: Event) -> None:
    client.sendall(HEAD)
    drip(client, over, b"[" * 1000)


@pytest.mark.parametrize("talk", [in_the_head, in_the_body])
def test_a_server_that_drips_is_given_up(talk) -> None:
    with talking(talk) as url:
        began = time.monotonic()
        with pytest.raises(LabelStudioTimeout, match=r"had not answered in full after 1 s"):
            LabelStudioClient(url, TOKEN, timeout=0.5).check()
        assert time.monotonic() - began < 30
        with pytest.raises(LabelStudioTimeout, match=r"had not answered in full after 1 s"):
            AnnotatorSession.login(url, "ann@example.com", "none", timeout=0.5)


def test_an_answer_without_an_end_is_given_up(monkeypatch) -> None:
    def endless(client: socket.socket, over: Event) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while not over.is_set():
            client.sendall(b"[" * 65536)

    monkeypatch.setattr(http_limits.read_whole, "__defaults__", (2**20,))
    with talking(endless) as url, pytest.raises(LabelStudioNonsense, match="more than 256 MiB, which is not read"):
        LabelStudioClient(url, TOKEN, timeout=20).check()


def test_a_header_of_other_letters_breaks_nothing() -> None:
    def answer(client: socket.socket, _: Event) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nX-Server: Caf\xe9\r\nX-Other: \xff\xc2\xb2\r\nContent-Length: 2\r\n\r\n{}")

    with talking(answer) as url, pytest.raises(LabelStudioError, match="is no Label Studio"):
        LabelStudioClient(url, TOKEN, timeout=5).check()
