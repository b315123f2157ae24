"""One annotator at work in Label Studio: signed up by invitation, logged in as a browser is."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from rlhf_dagster.common.http.limits import WHOLE_ANSWER, read_whole, set_time_limit
from rlhf_dagster.labeling.label_studio.server import is_local
from rlhf_dagster.labeling.label_studio.transport import answers
from rlhf_dagster.labeling.label_studio.transport.errors import (
    LabelStudioError,
    no_label_studio,
    nonsense,
    require_address,
    response_error,
    transport_error,
)

_CSRF_FIELD = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


class AnnotatorSession:
    """Annotations made here are the annotator's own, as if made in a browser."""

    def __init__(self, url: str, email: str, timeout: float) -> None:
        self.url, self.email, self.timeout = url.rstrip("/"), email, timeout
        require_address(self.url)
        http = httpx.Client(timeout=timeout, headers={"Connection": "close"}, trust_env=not is_local(self.url))
        self._http = set_time_limit(http, WHOLE_ANSWER * timeout)

    def __repr__(self) -> str:
        return f"AnnotatorSession({self.url!r}, {self.email!r})"

    @classmethod
    def join(cls, url: str, invite_url: str, email: str, password: str, timeout: float = 60.0) -> "AnnotatorSession":
        """Sign up with the invitation. Raises LabelStudioError if the server refuses."""
        session = cls(url, email, timeout)
        fields = {"email": email, "password": password, "allow_newsletters": ""}
        if not session._submit_form(invite_url, fields):
            raise LabelStudioError(
                f"Label Studio at {session.url} did not let {email} sign up; is the invitation valid?"
            )
        return session

    @classmethod
    def login(cls, url: str, email: str, password: str, timeout: float = 60.0) -> "AnnotatorSession":
        """Log in. Raises LabelStudioError where the user is not known or has another password."""
        session = cls(url, email, timeout)
        if not session._submit_form(f"{session.url}/user/login/", {"email": email, "password": password}):
            raise LabelStudioError(f"{email} cannot log in to Label Studio at {session.url} with this password.")
        return session

    def annotate(
        self, task: int, result: Sequence[Mapping[str, Any]], lead_time: float | None, was_cancelled: bool = False
    ) -> dict[str, Any]:
        """Submit an annotation, or skip the task."""
        body = {"result": list(result), "lead_time": lead_time, "was_cancelled": was_cancelled, "ground_truth": False}
        return self._send("POST", f"api/tasks/{task}/annotations/", body, answers.annotation)

    def update_annotation(self, annotation: int, **fields: Any) -> dict[str, Any]:
        return self._send("PATCH", f"api/annotations/{annotation}/", fields, answers.annotation)

    def close(self) -> None:
        self._http.close()

    def _submit_form(self, address: str, fields: Mapping[str, str]) -> bool:
        """Submit a form of the server; returns whether the server accepted it, that is, answered with a redirect."""
        page = self._request("GET", address)
        token = _CSRF_FIELD.search(page.text)
        if token is None:
            raise no_label_studio(self.url)
        data = {**fields, "csrfmiddlewaretoken": token[1]}
        return self._request("POST", address, data=data, headers={"Referer": address}).status_code == 302

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        check: Callable[[Any], dict[str, Any]] = answers.object_of,
    ) -> dict[str, Any]:
        """Send JSON; the answer where ``check`` accepts it."""
        headers = {"X-CSRFToken": self._http.cookies.get("csrftoken") or "", "Referer": self.url}
        response = self._request(method, f"{self.url}/{path}", json=body, headers=headers)
        if not response.is_success:
            raise response_error(self.url, method, path, response)
        try:
            return check(answers.parsed(response.content))
        except answers.WrongShape as wrong:
            raise nonsense(self.url, f"{method} {path}", wrong) from None

    def _request(self, method: str, address: str, **options: Any) -> httpx.Response:
        try:
            with self._http.stream(method, address, **options) as streamed:
                return read_whole(streamed)
        except httpx.HTTPError as error:
            raise transport_error(self.url, self.timeout, error) from None
