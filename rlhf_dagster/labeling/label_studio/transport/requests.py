"""Requests of a Label Studio server: tokens of both kinds, their refreshing, and the transport are the SDK's."""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from rlhf_dagster.common.http.limits import WHOLE_ANSWER, read_whole, set_time_limit
from rlhf_dagster.labeling.label_studio.server import is_local
from rlhf_dagster.labeling.label_studio.transport import answers
from rlhf_dagster.labeling.label_studio.transport.answers import WrongShape
from rlhf_dagster.labeling.label_studio.transport.errors import (
    no_label_studio,
    nonsense,
    require_address,
    response_error,
    status_error,
    transport_error,
    unauthorized,
)

REFRESH = "api/token/refresh/"
"""Where a personal access token is exchanged for one that lasts minutes."""
_TOKEN = re.compile(r"[!-~]+")
"""What an HTTP header can hold."""


class Requests:
    """Requests of the server at ``url`` by the owner of ``token``, each with a timeout, and none repeated."""

    def __init__(self, url: str, token: str, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._token = token.strip()
        self._http = self._connect()

    def secret_for(self, name: str) -> str:
        """The password of a simulated annotator, derived from the token, so that it need not be stored."""
        return hmac.new(self._token.encode(), name.encode(), hashlib.sha256).hexdigest()[:32]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def _read(
        self,
        method: str,
        path: str,
        check: Callable[[Any], Any],
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """The answer to a request, as ``check`` returns it; raises LabelStudioError for one that it does not accept."""
        return self._believe(f"{method} {path}", check, self._json(method, path, params, body))

    def _believe(self, request: str, check: Callable[[Any], Any], body: Any) -> Any:
        try:
            return check(body)
        except WrongShape as wrong:
            raise nonsense(self.url, request, wrong) from None

    def _json(self, method: str, path: str, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        response = self._request(method, path, params, body)
        try:
            return answers.parsed(response.content)
        except answers.NoJson:
            raise no_label_studio(self.url) from None
        except WrongShape as wrong:
            raise nonsense(self.url, f"{method} {path}", wrong) from None

    def _request(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, body: Any = None
    ) -> httpx.Response:
        from label_studio_sdk.core.api_error import ApiError

        content = None if body is None else json.dumps(body).encode()
        try:
            with self._http.stream(
                path,
                method=method,
                params=dict(params or {}),
                content=content,
                headers={"Content-Type": "application/json"} if content else {},
                request_options={"max_retries": 0},
            ) as streamed:
                response = read_whole(streamed)
        except httpx.HTTPError as error:
            raise transport_error(self.url, self.timeout, error) from None
        except ApiError as error:
            raise status_error(self.url, "POST", REFRESH, error.status_code, error.body, self._token) from None
        except ValueError:
            raise no_label_studio(self.url) from None
        if not response.is_success:
            raise response_error(self.url, method, path, response)
        return response

    def _connect(self) -> Any:
        """The SDK's transport: authentication, refreshed where the token is a personal access token."""
        from label_studio_sdk.client import LabelStudio
        from label_studio_sdk.core.api_error import ApiError

        require_address(self.url)
        if not _TOKEN.fullmatch(self._token):
            raise unauthorized(self.url, "")
        # The server's cookies are refused (a session would demand CSRF tokens), and connections are not kept: its
        # development server answers on a kept one 45 ms later.
        http = httpx.Client(
            timeout=self.timeout,
            headers={"Connection": "close"},
            limits=httpx.Limits(max_keepalive_connections=0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            trust_env=not is_local(self.url),  # a proxy cannot reach this machine
        )
        set_time_limit(http, WHOLE_ANSWER * self.timeout)
        try:
            # Without the slash the SDK refreshes tokens at the root of a server that is below a path.
            base, options = f"{self.url}/", {"httpx_client": http, "timeout": self.timeout, "max_retries": 0}
            sdk = LabelStudio(base_url=base, api_key=self._token, **options)
        except ApiError:
            raise unauthorized(self.url, "") from None
        return sdk._client_wrapper.httpx_client
