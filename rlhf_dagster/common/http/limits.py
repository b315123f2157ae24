"""Limits of one exchange with a server, whatever it does between two bytes: seconds and bytes in all."""

import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from rlhf_dagster.common.bounds.limits import ANSWER_MIB, MEBIBYTE

WHOLE_ANSWER = 2.0
"""Seconds that an answer may take from the first byte to the last, as a multiple of the wait for one byte."""
TOO_SLOW, TOO_LARGE = "too slow", "too large"
"""Messages of the errors raised here, by which a sentence is chosen."""


def set_time_limit(http: httpx.Client, seconds: float) -> httpx.Client:
    """End each of the client's connections after ``seconds``: its own timeout starts anew with every byte.

    The client must not keep connections, so that each carries one request.
    """
    transports = [http._transport, *http._mounts.values()]
    for transport in transports:
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = _Backend(seconds)
    return http


def read_whole(response: httpx.Response, largest: int | None = None) -> httpx.Response:
    """A streamed response with its content; raises httpx.ReadError where that is larger than ``largest`` bytes.

    By default the limit ANSWER_MIB holds; a page of tasks with the longest texts has a tenth of it.
    """
    largest = largest or ANSWER_MIB.most * MEBIBYTE
    pieces, size = [], 0
    for piece in response.iter_bytes():
        size += len(piece)
        if size > largest:
            raise httpx.ReadError(TOO_LARGE)
        pieces.append(piece)
    packing = (b"content-encoding", b"transfer-encoding", b"content-length")
    # As bytes: a header's value may be no ASCII, and no client can then write again what it reads as text.
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in packing]
    return httpx.Response(response.status_code, headers=headers, content=b"".join(pieces), request=response.request)


class _Backend(httpcore.SyncBackend):
    """Connections that end ``seconds`` after they were asked for."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        end = time.monotonic() + self._seconds
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options), end)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, end: float) -> None:
        self._stream, self._end = stream, end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))
        except httpcore.ReadTimeout:
            self._left(timeout, httpcore.ReadTimeout)
            raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._end)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None, error: type[Exception]) -> float:
        """Seconds to wait for the next byte."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise error(TOO_SLOW)
        return left if timeout is None else min(left, timeout)
