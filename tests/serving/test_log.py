"""The log of a served loop: what is asked and answered, without who it was, and thumbs; nothing where nobody asked."""

import http.client
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from served_loops import Served, serving_loop, until

from rlhf_dagster.common.user_hash import KEY_VARIABLE, USERS_KEY, user_hash, users_key
from rlhf_dagster.config.data import FeedbackSettings
from rlhf_dagster.data.conversations.taking import take
from rlhf_dagster.errors import UserError
from rlhf_dagster.serving.log import ConversationLog

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
KEY = b"k" * 32


def lines_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def chat(served: Served, **values: Any) -> dict[str, Any]:
    """The answer to a request without a prompt of its own."""
    found = served.ask(path=CHAT, prompt=None, messages=HELLO, **values)
    assert found.status == 200
    return json.loads(found.text)  # type: ignore[no-any-return]


def thumbs(served: Served, **values: Any) -> tuple[int, str]:
    found = served.ask(path="/v1/feedback", **values)
    return found.status, found.text


def test_a_conversation_and_its_thumbs_are_logged_and_become_a_prompt(tmp_path: Path) -> None:
    log = tmp_path / "chats" / "log.jsonl"
    with serving_loop(tmp_path, log) as served:
        served.go.touch()
        policy = served.board.policy_id
        given = {"user": "ada@example.com", "metadata": {"consent": "true", "secret": "of the app"}}
        answer = chat(served, api_key="sk-1", headers={"Authorization": "Bearer sk-2"}, **given)
        assert thumbs(served, id=answer["id"], thumbs="up", user="ada@example.com")[0] == 200
        assert answer["asked"] == {"prompt": None, "messages": HELLO, "api_key": "sk-1", "model": policy}
    conversation, feedback = lines_in(log)
    hashed = user_hash("ada@example.com", users_key(served.loop.root))
    assert conversation.pop("time").endswith("+00:00")
    assert conversation == {
        "id": answer["id"],
        "policy": policy,
        "consent": "true",
        "request": {"messages": HELLO, "prompt": None},
        "response": {
            "choices": [{"message": {"role": "assistant", "content": f"I am {policy}"}, "finish_reason": "stop"}]
        },
        "user": hashed,
    }
    assert (feedback["feedback"], feedback["user"]) == ({"id": answer["id"], "choice": 0, "thumbs": "up"}, hashed)
    assert stat.S_IMODE(log.stat().st_mode) == stat.S_IMODE((served.loop.root / USERS_KEY).stat().st_mode) == 0o600
    found = take(FeedbackSettings(logs=["chats"], personal_data="keep"), tmp_path)
    assert [(str(one.prompt), one.user, one.policy_id, one.place.log) for one in found.prompts] == [
        ("Hello", hashed, policy, "chats/log.jsonl")
    ]
    assert [(one.response, one.liked, one.user) for one in found.thumbs] == [(f"I am {policy}", True, hashed)]


def test_streams_are_logged_whole_and_under_the_id_that_they_have(tmp_path: Path) -> None:
    with serving_loop(tmp_path, tmp_path / "logs") as served:
        served.go.touch()
        found = served.ask(stream=True)
        said = served.ask(path=CHAT, messages=HELLO, stream=True)
        policy = served.board.policy_id
    (file,) = (tmp_path / "logs").iterdir()
    completion, conversation = lines_in(file)
    assert completion["response"] == {"choices": [{"text": f"I am {policy}", "finish_reason": "stop"}]}
    assert conversation["response"]["choices"][0]["message"]["content"] == f"I am {policy}"
    for line, answer in ((completion, found), (conversation, said)):
        events = [json.loads(event[6:]) for event in answer.text.splitlines() if event.startswith("data: {")]
        assert {event["id"] for event in events} == {line["id"]}
    assert completion["id"].startswith("cmpl-")
    assert conversation["id"].startswith("chatcmpl-")


def test_nothing_is_logged_unasked_and_refused_requests_never(tmp_path: Path) -> None:
    with serving_loop(tmp_path) as served:
        served.go.touch()
        assert chat(served, user="ada")["id"] == "req_0"
        status, text = thumbs(served, id="chatcmpl-" + "0" * 32, thumbs="up")
        assert (status, "There is no /v1/feedback here" in text) == (404, True)
        assert not (served.loop.root / USERS_KEY).exists()
    with serving_loop(tmp_path / "second", tmp_path / "log.jsonl") as served:
        served.go.touch()
        assert served.ask(model="gpt-9").status == 404
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_thumbs_that_are_none_are_refused(tmp_path: Path) -> None:
    good = {"id": "cmpl-" + "0" * 32, "thumbs": "down"}
    with serving_loop(tmp_path, tmp_path / "log.jsonl") as served:
        for wrong in ({"id": "req_0"}, {"id": 7}, {"thumbs": "sideways"}, {"choice": -1}, {"choice": True}):
            status, text = thumbs(served, **good | wrong)
            assert (status, "is to be" in text) == (400, True)
        assert thumbs(served, **good)[0] == 200
    assert len(lines_in(tmp_path / "log.jsonl")) == 1


def test_what_was_said_until_somebody_went_is_logged_as_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with serving_loop(tmp_path, log) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port)
        body = json.dumps({"prompt": "Hi"})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        until(lambda: served.board._current.requests == 1)
        assert connection.sock is not None
        connection.sock.close()
        connection.close()
        served.go.touch()
        until(lambda: log.read_bytes() != b"")
    assert lines_in(log)[0]["request"] == {"prompt": "Hi"}


def test_a_log_that_cannot_be_written_fails_no_request_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    log = ConversationLog(tmp_path / "log.jsonl", KEY, said.append)
    log.conversation({"request": {"prompt": "\ud83d half"}}, "")
    written = os.write

    def full(handle: int, data: bytes) -> int:
        return written(handle, data[:5])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        for _ in range(2):
            log.conversation({"request": {"prompt": "lost"}}, "ada")
    log.conversation({"request": {"prompt": "after"}}, "ada")
    assert [sentence.partition(":")[0] for sentence in said] == ["A conversation is not in the log"]
    found = take(FeedbackSettings(logs=["log.jsonl"], personal_data="keep", consent=False), tmp_path)
    assert [one.prompt for one in found.prompts] == ["after"]
    assert (found.lines.read, found.lines.refused) == (4, 3)


def test_users_are_hashed_with_a_key_that_several_machines_can_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (user_hash("ada", users_key(tmp_path / name)) for name in ("one", "two"))
    assert first != second
    assert first == user_hash("ada", users_key(tmp_path / "one"))
    assert user_hash("", KEY) == ""
    monkeypatch.setenv(KEY_VARIABLE, "s" * 32)
    assert len({user_hash("ada", users_key(tmp_path / name)) for name in ("one", "two")}) == 1
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(UserError, match="has at least 32 characters"):
        users_key(tmp_path)
