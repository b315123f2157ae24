"""What can go wrong between us and a Label Studio server, a sentence each. No message holds a token."""

from typing import Any

import httpx

from rlhf_dagster.errors import UserError

DETAIL = 200
"""Characters of a server's own words that a sentence repeats."""


class LabelStudioError(UserError):
    """Label Studio did not do what was asked."""


class LabelStudioTimeout(LabelStudioError):  # noqa: N818  # a timeout is what it is
    """No answer in time; what was asked may still be done later."""


class LabelStudioUnreachable(LabelStudioError):  # noqa: N818
    """There is no server, or it went away before it answered; what was asked may have been done."""


class LabelStudioGone(LabelStudioError):  # noqa: N818
    """What was asked for is not there."""


def transport_error(url: str, timeout: float, error: httpx.HTTPError) -> LabelStudioError:
    """The sentence for a request that brought no response."""
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
    status, detail = response.status_code, _detail(response)
    if status == 401:
        return unauthorized(url, detail)
    if status == 403:
        return LabelStudioError(
            f"Label Studio at {url} does not allow {method} {path} with this token ({detail}); use a token of a user "
            "who is a member of its organization."
        )
    if status == 404:
        return LabelStudioGone(f"Label Studio at {url} has no {path} (any more); was it deleted there?")
    return LabelStudioError(f"Label Studio at {url} answered {method} {path} with status {status}: {detail}.")


def unauthorized(url: str, detail: str) -> LabelStudioError:
    if "legacy" in detail.lower():
        return LabelStudioError(
            f"Label Studio at {url} has legacy tokens disabled; use a personal access token (Account & Settings > "
            "Personal Access Token), or enable legacy tokens in its organization settings."
        )
    return LabelStudioError(
        f"Label Studio at {url} does not accept the token; copy a valid one from Account & Settings there."
    )


def _detail(response: httpx.Response) -> str:
    """What the server says is wrong, on one line."""
    try:
        body: Any = response.json()
    except ValueError:
        return "no JSON, so this may be no Label Studio"
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    return " ".join(str(body).split())[:DETAIL].rstrip(".")
