"""The front and the servers behind it: the champion changes, nothing is dropped, each answer names its policy."""

import json
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kept_models import loop_of_policies
from loops import assert_one_sentence, rlhf_here
from served_loops import STUB, serving_loop, until

from rlhf_dagster.common.processes import processes_with
from rlhf_dagster.errors import UserError
from rlhf_dagster.serving import backend
from rlhf_dagster.serving.backend import Backend, command_of

KEY = "round-0001"


def test_no_request_is_dropped_when_the_champion_changes_and_comes_back(tmp_path: Path) -> None:
    with serving_loop(tmp_path) as served, ThreadPoolExecutor(201) as pool:
        board, registry = served.board, served.loop.registry
        sft, (ppo,) = board.policy_id, [one for one in registry.policies() if one.startswith("ppo")]
        with board.backend() as first:
            before = [pool.submit(served.ask, path="/v1/chat/completions") for _ in range(100)]
            until(lambda: first.requests == 101)
        registry.promote(ppo, KEY, "gate", "better")
        until(lambda: board.policy_id == ppo)
        with board.backend() as second:
            between = [pool.submit(served.ask, model="champion") for _ in range(100)]
            until(lambda: second.requests == 101)
        registry.rollback(sft, "Ada", "rude")
        until(lambda: board.policy_id == sft)
        after = [pool.submit(served.ask, model=sft)]
        assert first.lives()
        assert second.lives()
        served.go.touch()
        for policy, futures in ((sft, before), (ppo, between), (sft, after)):
            for future in futures:
                found = future.result()
                assert (found.status, found.policy) == (200, policy)
                answer = json.loads(found.text)
                assert (answer["model"], answer["said"], answer["asked"]["model"]) == (policy,) * 3
        until(lambda: not (first.lives() or second.lives()))
    assert processes_with(str(STUB), str(tmp_path)) == []
    assert served.said == [f"{ppo} answers from now on.", f"{sft} answers from now on."]


def test_a_stream_names_the_policy_in_each_event(tmp_path: Path) -> None:
    with serving_loop(tmp_path) as served:
        served.go.touch()
        found = served.ask(stream=True)
        *events, last = [line for line in found.text.splitlines() if line]
        assert last == "data: [DONE]"
        models = [json.loads(event.removeprefix("data: "))["model"] for event in events]
        assert models == [served.board.policy_id] * 2
        assert "/private" not in found.text


def test_what_is_not_for_this_server_is_refused(tmp_path: Path) -> None:
    with serving_loop(tmp_path) as served:
        served.go.touch()
        for status, sentence, given in (
            (404, "gpt-9 does not answer here", {"model": "gpt-9"}),
            (404, "There is no /v1/audio", {"path": "/v1/audio"}),
            (415, "application/json", {"headers": {"Content-Type": "text/plain"}}),
            (421, "localhost", {"headers": {"Host": "evil.example"}}),
        ):
            found = served.ask(**given)
            assert (found.status, found.policy) == (status, served.board.policy_id)
            assert sentence in json.loads(found.text)["error"]["message"]
        assert served.board._current.requests == 0


def test_a_champion_that_cannot_be_loaded_leaves_the_one_before(tmp_path: Path) -> None:
    with serving_loop(tmp_path) as served:
        served.go.touch()
        before = served.board.policy_id
        served.broken.set()
        (ppo,) = [one for one in served.loop.registry.policies() if one.startswith("ppo")]
        served.loop.registry.promote(ppo, KEY, "gate", "better")
        until(lambda: bool(served.said))
        assert f"{before} goes on: The server of {ppo} has ended (no room on the GPU); " in served.said[0]
        assert (served.ask().status, served.ask().policy) == (200, before)
    assert len(served.said) == 1


def test_a_server_that_ends_is_started_again(tmp_path: Path) -> None:
    with serving_loop(tmp_path) as served:
        served.go.touch()
        first: Backend = served.board._current
        first.stop()
        until(lambda: served.board._current is not first)
        assert (served.ask().status, served.ask().policy) == (200, first.policy_id)


def test_what_is_missing_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs fastapi, uvicorn, openai; `.*'rlhf-dagster\[serve\]'`"):
        command_of("transformers")
    with pytest.raises(UserError, match=r"'rlhf-dagster\[vllm\]'"):
        command_of("vllm")
    loop = loop_of_policies(tmp_path)
    assert_one_sentence(rlhf_here("serve", "--backend", "ollama", "--loop", loop.root), "choose one of transformers")


def test_a_request_that_does_not_arrive_holds_up_no_other_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_LIMIT_REQUEST_SECONDS", "2")
    with serving_loop(tmp_path) as served, socket.create_connection(("127.0.0.1", served.port)) as sender:
        head = "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sender.sendall(f"{head}Content-Length: 100\r\n\r\n".encode())
        held = set[int]()
        while not select.select([sender], [], [], 0.01)[0]:
            held.add(served.board._current.requests)
        assert held == {0}
        answer = sender.makefile("rb").read().decode()
        assert answer.split()[1] == "408"
        assert answer.endswith('"type": "Request Timeout"}}')
