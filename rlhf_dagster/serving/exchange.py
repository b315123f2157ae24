"""A request and its answer, as the log has them: nothing of headers, and of the request only what was asked."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ABOUT_THE_USER = ("user", "safety_identifier", "metadata")
"""Of a request: for the log alone. Servers do not get it, and some refuse it."""
_LOGGED = ("messages", "prompt")
_PREFIX = {"/v1/chat/completions": "chatcmpl", "/v1/completions": "cmpl"}


@dataclass
class Exchange:
    """Who asked what, and, as it arrives, what was answered."""

    policy_id: str
    request: Mapping[str, Any]
    """As it came."""
    response_id: str
    """One of our own: those of servers begin anew with each server."""
    _choices: dict[int, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: str, policy_id: str, request: Mapping[str, Any]) -> "Exchange":
        return cls(policy_id, request, f"{_PREFIX[path]}-{uuid.uuid4().hex}")

    @property
    def user(self) -> str:
        """Who asked; empty where the request does not say."""
        return user_of(self.request)

    def hear(self, answer: Mapping[str, Any]) -> None:
        """Take in an answer, or an event of one that is streamed."""
        choices = answer.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._add(self._choice(choice), choice)

    def line(self) -> dict[str, Any]:
        """The line of the log, but for time and user. A choice that was cut off has no `finish_reason`."""
        metadata = self.request.get("metadata")
        return {
            "id": self.response_id,
            "policy": self.policy_id,
            "consent": metadata.get("consent") if isinstance(metadata, dict) else None,
            "request": {key: self.request[key] for key in _LOGGED if key in self.request},
            "response": {"choices": [self._choices[index] for index in sorted(self._choices)]},
        }

    def _choice(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        index = choice.get("index")
        return self._choices.setdefault(index if isinstance(index, int) else 0, {"finish_reason": None})

    @staticmethod
    def _add(kept: dict[str, Any], choice: Mapping[str, Any]) -> None:
        said = choice.get("message") or choice.get("delta")
        if isinstance(said, dict):
            message = kept.setdefault("message", {"role": "assistant", "content": ""})
            message["content"] += said.get("content") or ""
        elif isinstance(choice.get("text"), str):
            kept["text"] = kept.get("text", "") + choice["text"]
        kept["finish_reason"] = choice.get("finish_reason") or kept["finish_reason"]


def user_of(request: Mapping[str, Any]) -> str:
    """The user that a request names, under the older key or the newer one; empty where it names none."""
    return str(request.get("user") or request.get("safety_identifier") or "")
