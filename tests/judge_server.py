"""A chat model behind an OpenAI-compatible address, which says what a test wants."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fake_server import Answer, Asked, FakeServer, serving

from rlhf_dagster.config.judging.judge import JudgeService
from rlhf_dagster.config.judging.reward import HttpReward

KEY = "sk-secret-0123456789"
"""Which is to be found nowhere but in the header of requests."""
QUICK = JudgeService(timeout=5.0, retries=2, longest_wait=0.02)
RATER = HttpReward(kind="http", model="judge-1", service=QUICK)


def completion(text: Any, tokens: int = 7) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": tokens}}


def says(text: Any) -> Answer:
    return 200, completion(text)


def messages_in(asked: Asked) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(asked.body)["messages"]
    return found


def texts_in(asked: Asked) -> dict[str, Any]:
    """What the first question of a request is about."""
    found: dict[str, Any] = json.loads(messages_in(asked)[1]["content"])
    return found


@contextmanager
def judging(answer: Callable[[Asked], Answer], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """The server, at the address and with the key of the environment."""
    with serving(answer) as server:
        monkeypatch.setenv("RLHF_JUDGE_URL", f"{server.url}/v1")
        monkeypatch.setenv("RLHF_JUDGE_KEY", KEY)
        yield server
