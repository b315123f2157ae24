"""One exchange with an OpenAI-compatible server of chat models. No message holds the key."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rlhf_dagster.common.bounds.limits import MEBIBYTE, REPLY_MIB
from rlhf_dagster.config.judging.judge import JudgeService
from rlhf_dagster.errors import UserError

if TYPE_CHECKING:  # a loop is declared without it, in a fifth of a second less
    import httpx

_MOST_TOKENS = 1 << 53
"""A number of tokens that no server has read."""
_PASSING = (408, 409, 425, 429)
"""Statuses below 500 with which a server says that the same request may succeed later."""
_TURNED_AWAY = "content_filter", "content_policy", "content policy", "content management policy"
"""What a server says that does not let its model read a text."""
_DETAIL = 200
"""Characters of a server's own words that a sentence repeats."""


class JudgeAway(UserError):  # noqa: N818  # away is what it is
    """The server gave no answer; the same request may succeed later."""

    def __init__(self, sentence: str, billed: bool, wait: float | None = None) -> None:
        super().__init__(sentence)
        self.billed = billed
        """Whether the server may have done the work."""
        self.wait = wait
        """Seconds after which the server wants to be asked again, where it says so."""


@dataclass(frozen=True)
class Reply:
    """What a model answered."""

    text: str
    """Empty where the server did not let its model answer."""
    refusal: str = ""
    """Why it did not."""
    tokens: int = 0
    """Tokens read and written, by the server's account; 0 where it gives none."""


@dataclass(frozen=True)
class JudgeServer:
    """The server at ``url``, asked with ``key``; empty: without a key."""

    url: str
    key: str = field(repr=False)
    timeout: float = 60.0

    @classmethod
    def of(cls, service: JudgeService) -> "JudgeServer":
        """The server that the environment names; raises UserError where it names none that can be."""
        url, key = (os.environ.get(name, "").strip() for name in (service.url_variable, service.key_variable))
        if not url:
            raise UserError(
                f"{service.url_variable} is not set; set it to the address of the judge's server, such as "
                "http://127.0.0.1:8000/v1."
            )
        if not _is_address(url):
            raise UserError(
                f"{service.url_variable} must be an address such as http://127.0.0.1:8000/v1, without user, password "
                "or question mark."
            )
        if not key.isascii() or any(character <= " " for character in key):
            raise UserError(f"{service.key_variable} holds what no key can hold, such as a space; copy the key again.")
        return cls(url.rstrip("/"), key, service.timeout)

    def connect(self) -> "httpx.Client":
        """A client for requests of this server, which several threads can share."""
        import httpx

        from rlhf_dagster.common.http.limits import WHOLE_ANSWER, set_time_limit

        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        local = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        # A connection is not kept, so that each has an end in time; and a proxy cannot reach this machine.
        client = httpx.Client(
            timeout=self.timeout,
            headers={"Connection": "close", **headers},
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=not local,
        )
        return set_time_limit(client, WHOLE_ANSWER * self.timeout)

    def ask(self, client: "httpx.Client", body: Mapping[str, Any]) -> Reply:
        """The reply to a request's ``body``.

        Raises:
            JudgeAway: there was none, and later there may be one.
            UserError: the server does not accept such a request.
        """
        import httpx

        from rlhf_dagster.common.http.limits import read_whole

        try:
            with client.stream("POST", f"{self.url}/chat/completions", json=dict(body)) as streamed:
                response = read_whole(streamed, REPLY_MIB.most * MEBIBYTE)
        except httpx.HTTPError as error:
            raise self._transport_error(error) from None
        if response.is_success:
            return self._read(response)
        if any(words in response.text.lower() for words in _TURNED_AWAY):
            return Reply("", f"the server does not let its model read it ({self._detail(response)})")
        raise self._status_error(response)

    def _read(self, response: "httpx.Response") -> Reply:
        try:
            return _reply_in(json.loads(response.content))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            sentence = "answered with what is no chat completion; see whether the address is right"
            raise JudgeAway(f"The judge's server at {self.url} {sentence}.", billed=True) from None

    def _transport_error(self, error: "httpx.HTTPError") -> UserError:
        import httpx

        from rlhf_dagster.common.http.limits import TOO_LARGE

        if str(error) == TOO_LARGE:
            return UserError(
                f"The judge's server at {self.url} answers with more than {REPLY_MIB.most} MiB; {REPLY_MIB.said()}."
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return JudgeAway(f"The judge's server at {self.url} cannot be reached.", billed=False)
        if isinstance(error, httpx.TimeoutException):
            sentence = f"gave no whole answer in time (reward or judge `service.timeout` is {self.timeout:g} s)"
            return JudgeAway(f"The judge's server at {self.url} {sentence}.", billed=True)
        broke = f"The judge's server at {self.url} broke off ({type(error).__name__})."
        return JudgeAway(broke, billed=True)

    def _status_error(self, response: "httpx.Response") -> UserError:
        status, detail = response.status_code, self._detail(response)
        said = f"The judge's server at {self.url} answered with status {status}: {detail}"
        if status >= 500 or status in _PASSING:
            return JudgeAway(f"{said}.", billed=False, wait=_retry_after(response))
        if status in (401, 403):
            return UserError(f"{said}; give a valid key in the variable that `service.key_variable` names.")
        if status in (301, 302, 303, 307, 308):
            return UserError(f"{said}; it sends requests on elsewhere: give the address where it really is.")
        return UserError(f"{said}; see whether address and `model` are right, and what `parameters` it knows.")

    def _detail(self, response: "httpx.Response") -> str:
        """What the server says is wrong, on one line, without the key should it repeat it."""
        try:
            body = response.json()
        except (ValueError, RecursionError):
            body = response.text
        while isinstance(body, dict) and (inner := body.get("error") or body.get("message") or body.get("detail")):
            body = inner
        words = " ".join(str(body).split()) or "nothing more"
        return _short(words.replace(self.key, "...") if self.key else words)


def _reply_in(body: Any) -> Reply:
    """The first choice of a chat completion; raises what wrong types and missing keys raise."""
    message = body["choices"][0]["message"]
    text, refusal = (message.get(name) or "" for name in ("content", "refusal"))
    return Reply("" + text, refusal and f"its model refused: {_short(refusal)}", _tokens(body))


def _short(words: str) -> str:
    return " ".join(words.split())[:_DETAIL].rstrip(".")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return usable and "@" not in parts.netloc and not parts.query and not parts.fragment


def _tokens(body: Mapping[str, Any]) -> int:
    usage = body.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else 0
    return total if isinstance(total, int) and not isinstance(total, bool) and 0 < total < _MOST_TOKENS else 0


def _retry_after(response: "httpx.Response") -> float | None:
    """Seconds that the header `Retry-After` asks to wait: it holds them, or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError, OSError):
        return None
