"""Which requests a server of ours answers: those under a name of its own that no other web page has brought about.

A browser sends requests to this machine for whatever page asks for them, so that to listen on loopback keeps out other
machines and not their pages. What gives such a request away is its `Host` (a foreign name bound to our address: DNS
rebinding), its `Origin`, or what the browser says of where it comes from (`Sec-Fetch-Site`). A program that is no
browser sends none of these and is answered.
"""

from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from rlhf_dagster.common.ports import LOOPBACK

OWN_NAMES = (LOOPBACK, "localhost")
"""Host names that a request to this machine may have."""
READING = ("GET", "HEAD")
_JSON = "application/json"
_OWN_SITE = ("same-origin", "none")
"""What a browser says of a request that a page of the same origin, or its user, has asked for."""


class Refusal(NamedTuple):
    """Why a request is not answered."""

    status: HTTPStatus
    sentence: str


def refusal(
    method: str, headers: Iterable[tuple[str, str]], names: Collection[str] = OWN_NAMES, websocket: bool = False
) -> Refusal | None:
    """Why a request with these headers is not answered; None for one that is.

    ``names`` are the host names of the server. A websocket is asked for by GET, and acts like a page.
    """
    given = _Headers(headers)
    hosts = given.all("host")
    if len(hosts) != 1 or host_name(hosts[0]) not in names:
        return Refusal(HTTPStatus.MISDIRECTED_REQUEST, f"Ask for {' or '.join(names)}.")
    if not all(_is_own_origin(origin, hosts[0]) for origin in given.all("origin")):
        return Refusal(HTTPStatus.FORBIDDEN, "A page of another origin asks for this.")
    follows_link = method in READING and not websocket and given.is_followed_link
    if not follows_link and not all(site in _OWN_SITE for site in given.all("sec-fetch-site")):
        return Refusal(HTTPStatus.FORBIDDEN, "A page of another site asks for this.")
    if method not in READING and given.content_types != [_JSON]:
        return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {_JSON}.")
    return None


def host_name(host: str) -> str | None:
    """The name in a `Host` header, without its port; None where it is none."""
    try:
        parts = urlsplit(f"//{host}")
    except ValueError:
        return None
    is_place = not (parts.path or parts.query or parts.fragment or "@" in host)
    return parts.hostname if is_place else None


def _is_own_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` is that of the server; a proxy before us may speak https."""
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()


class _Headers:
    def __init__(self, headers: Iterable[tuple[str, str]]) -> None:
        self._given = [(name.lower(), value.strip()) for name, value in headers]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._given if key == name]

    @property
    def is_followed_link(self) -> bool:
        """Whether the browser's user goes to what is asked for, rather than to show it in a page or to read it."""
        return self.all("sec-fetch-mode") == ["navigate"] and self.all("sec-fetch-dest") == ["document"]

    @property
    def content_types(self) -> list[str]:
        return [value.partition(";")[0].strip().lower() for value in self.all("content-type")]
