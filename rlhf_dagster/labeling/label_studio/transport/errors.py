"""What can go wrong between us and a Label Studio server, a sentence each. No message holds a token."""

from typing import Any
from urllib.parse import urlsplit

import httpx

from rlhf_dagster.common.bounds.limits import ANSWER_MIB
from rlhf_dagster.common.http.limits import TOO_LARGE, TOO_SLOW, WHOLE_ANSWER
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.transport.answers import WrongShape
from rlhf_dagster.labeling.store import LabelStoreUnavailable

DETAIL = 200
"""Characters of a server's own words that a sentence repeats."""


class LabelStudioError(UserError):
    """Label Studio did not do what was asked."""


class LabelStudioTimeout(LabelStudioError, LabelStoreUnavailable):  # noqa: N818  # a timeout is what it is
    """No answer in time; what was asked may still be done later."""


class LabelStudioUnreachable(LabelStudioError, LabelStoreUnavailable):  # noqa: N818
    """There is no server, or it went away before it answered; what was asked may have been done."""


class LabelStudioFailed(LabelStudioError, LabelStoreUnavailable):  # noqa: N818
    """The server, or what stands in front of it, failed (a status from 500 on)."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class LabelStudioGone(LabelStudioError):  # noqa: N818
    """What was asked for is not there."""


class LabelStudioNonsense(LabelStudioError):  # noqa: N818
    """The server says that all is well, and its answer is not what was asked for."""


class AnotherDatabase(LabelStudioError):  # noqa: N818
    """The database that answers is not the one that we know, or it was set back: a person has to say what it is."""


def transport_error(url: str, timeout: float, error: httpx.HTTPError) -> LabelStudioError:
    """The sentence for a request that brought no response."""
    if str(error) == TOO_SLOW:
        return LabelStudioTimeout(
            f"Label Studio at {url} had not answered in full after {WHOLE_ANSWER * timeout:g} s; see what slows it, or "
            "the network, down, or raise label_store.timeout, then try again."
        )
    if str(error) == TOO_LARGE:
        return LabelStudioNonsense(
            f"Label Studio at {url} answers with more than {ANSWER_MIB.most:,} MiB, which is not read; see "
            f"whether it is a Label Studio, and whether a text in its tasks is that long; {ANSWER_MIB.said()}."
        )
    if isinstance(error, httpx.TimeoutException):
        return LabelStudioTimeout(
            f"Label Studio at {url} gave no answer within {timeout:g} s; see whether it is overloaded, or raise "
            "label_store.timeout, then try again."
        )
    return LabelStudioUnreachable(
        f"Label Studio at {url} cannot be reached ({type(error).__name__}); start it (`rlhf label-studio up`) or "
        "correct label_store.url, then try again."
    )


def response_error(url: str, method: str, path: str, response: httpx.Response) -> LabelStudioError:
    """The sentence for a response that is no success."""
    if response.has_redirect_location:
        return LabelStudioError(
            f"{url} sends requests on to {response.headers['Location']}; correct label_store.url to where Label Studio "
            "really is."
        )
    try:
        body = response.json()
    except ValueError:
        body = "no JSON, so this may be no Label Studio"
    secret = response.request.headers.get("Authorization", "").rpartition(" ")[2]
    return status_error(url, method, path, response.status_code, body, secret)


def status_error(url: str, method: str, path: str, status: int | None, body: Any, secret: str) -> LabelStudioError:
    """The sentence for a status that is no success, without ``secret`` should the server have repeated it."""
    detail = _detail(body, secret)
    if status == 401:
        return unauthorized(url, detail)
    if status == 403:
        return LabelStudioError(
            f"Label Studio at {url} does not allow {method} {path} with this token ({detail}); use a token of a user "
            "who is a member of its organization."
        )
    if status == 404:
        return LabelStudioGone(f"Label Studio at {url} has no {path} (any more); was it deleted there?")
    sentence = f"Label Studio at {url} answered {method} {path} with status {status}: {detail}."
    return LabelStudioFailed(sentence, status) if status is not None and status >= 500 else LabelStudioError(sentence)


def unauthorized(url: str, detail: str) -> LabelStudioError:
    if "legacy" in detail.lower():
        return LabelStudioError(
            f"Label Studio at {url} has legacy tokens disabled; use a personal access token (Account & Settings > "
            "Personal Access Token), or enable legacy tokens in its organization settings."
        )
    return LabelStudioError(
        f"Label Studio at {url} does not accept the token; copy a valid one from Account & Settings there."
    )


def no_label_studio(url: str) -> LabelStudioError:
    return LabelStudioError(f"What answers at {url} is no Label Studio; correct label_store.url.")


def nonsense(url: str, path: str, wrong: WrongShape) -> LabelStudioNonsense:
    """The sentence for an answer that says that all is well and is not what was asked for."""
    return LabelStudioNonsense(
        f"Label Studio at {url} answered {path} with what cannot be read: {wrong}. Nothing of it is recorded; see "
        "whether the server was upgraded, or something else answers at label_store.url, then try again."
    )


def require_address(url: str) -> None:
    """Raises LabelStudioError for an address that nothing could have."""
    try:
        usable = bool(httpx.URL(url).host) and urlsplit(url).port != 0
    except (httpx.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise LabelStudioError(f"{url} is no address; correct label_store.url.")


def _detail(body: Any, secret: str) -> str:
    """What the server says is wrong, on one line."""
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    words = " ".join(str(body).split())
    return (words.replace(secret, "...") if secret else words)[:DETAIL].rstrip(".")
