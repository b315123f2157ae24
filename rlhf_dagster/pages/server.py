"""Serves a loop's pages, and nothing else of its folder, to browsers on this machine.

    python -m rlhf_dagster.pages.server ROOT PORT [--name NAME]

``rounds.html`` (also as ``/``) and ``assets/eval_report/*.html`` are all that there is; data, models and credentials
lie beside them. A request names one of these literally or gets 404: nothing is decoded, normalised or listed, and no
symbolic link below ROOT is followed.
"""

import argparse
import os
import re
import signal
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import NoReturn

from rlhf_dagster.common.http.arriving import TimedRequests
from rlhf_dagster.common.http.own_requests import OWN_NAMES, refusal
from rlhf_dagster.common.ports import LOOPBACK
from rlhf_dagster.common.sealed import is_whole_page
from rlhf_dagster.storage.known import is_remote, open_store

ROUNDS_PAGE = "rounds.html"
PAGES_PATH = "/loop-pages"
"""Where Dagster's web server of a loop has its pages too: links that begin with it work under every host's name."""
REPORT = re.compile(r"/(assets/eval_report/[A-Za-z0-9][A-Za-z0-9._-]*\.html)")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
NOT_YET = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>No rounds yet</title></head>
<body style="font: 16px/1.5 sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em">
<h1 style="font-size: 1.4em">No rounds yet</h1>
<p>The page of this loop's rounds is written after the first run. Open a round with <code>rlhf round open</code>, or in
Dagster's UI, and reload.</p></body></html>
"""


class PageHandler(TimedRequests, BaseHTTPRequestHandler):
    server_version, sys_version = "rlhf-pages", ""

    def __init__(self, address: str, names: Sequence[str], *connection: object) -> None:
        self._address, self._names = address, names
        super().__init__(*connection)  # type: ignore[arg-type]  # request, address and server, from the server

    def do_GET(self) -> None:
        if refused := refusal(self.command, self.headers.items(), self._names):
            self.send_error(refused.status, refused.sentence)
            return
        page = _requested(self.path)
        content = _content(self._address, page) if page else None
        if content is None and page == ROUNDS_PAGE:
            content = NOT_YET
        if content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        if not is_whole_page(content):
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, "This page is damaged; `rlhf check LOOP` says more")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def end_headers(self) -> None:
        """Send :data:`HEADERS` with every response, errors included."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged."""


def make_server(address: str, port: int, names: Sequence[str] = ()) -> ThreadingHTTPServer:
    """A server of the loop's store at ``address``, bound to the loopback address; 0 takes a free port.

    ``names`` are host names under which it is asked besides those of this machine.
    """
    where = address if is_remote(address) else str(Path(address).resolve())
    return ThreadingHTTPServer((LOOPBACK, port), partial(PageHandler, where, (*OWN_NAMES, *names)))


def _content(address: str, page: str) -> bytes | None:
    if not is_remote(address):
        return read_page(Path(address), page)
    found = open_store(address).get(page)
    return found.data if found else None


def read_page(root: Path, page: str) -> bytes | None:
    """The regular file ``page`` below ``root``; None where there is none.

    Each part is opened relative to the one before, so that a link put there meanwhile is not followed either.
    """
    *folders, name = PurePosixPath(page).parts
    with ExitStack() as opened:
        try:
            folder = _open(root, os.O_DIRECTORY, None, opened)
            for part in folders:
                folder = _open(part, os.O_DIRECTORY | os.O_NOFOLLOW, folder, opened)
            # O_NONBLOCK, because opening a named pipe would wait for a writer.
            file = _open(name, os.O_NOFOLLOW | os.O_NONBLOCK, folder, opened)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        with os.fdopen(os.dup(file), "rb") as content:
            return content.read()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="rlhf_dagster.pages.server", description="Serve a loop's pages.")
    parser.add_argument("root", help="the loop's folder, or the address of its store")
    parser.add_argument("port", type=int, help=f"port on {LOOPBACK}")
    parser.add_argument("--name", action="append", default=[], help="a host name under which a proxy asks")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    if not is_remote(options.root) and not Path(options.root).is_dir():
        parser.error(f"{options.root} is not a folder; give the loop's.")
    try:
        server = make_server(options.root, options.port, options.name)
    except (OSError, OverflowError) as error:
        parser.error(f"port {options.port}: {getattr(error, 'strerror', None) or error}; choose another one.")
    with server:
        server.serve_forever()


def _requested(target: str) -> str | None:
    """The page that a request names; None for everything else. A query is passed over, as browsers add them."""
    path = target.split("?", 1)[0]
    if path in ("/", f"/{ROUNDS_PAGE}"):
        return ROUNDS_PAGE
    report = REPORT.fullmatch(path)
    return report[1] if report else None


def _open(path: Path | str, flags: int, folder: int | None, opened: ExitStack) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=folder)
    opened.callback(os.close, handle)
    return handle


def _end(*_: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    main()
