"""The label page answers its own page with its token, and nobody else."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from label_loops import loop_of_kind
from loops import ROUND

from rlhf_dagster.cli.labels import judge
from rlhf_dagster.label_page.desk import Desk
from rlhf_dagster.label_page.server import MOST_BYTES, TOKEN_HEADER, make_label_server
from rlhf_dagster.loop.folder import LoopFolder


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    return loop_of_kind(tmp_path, "pair", n=2)


@pytest.fixture
def page(loop: LoopFolder) -> Iterator[httpx.Client]:
    """A client that has opened the page as its owner."""
    server, address = make_label_server(Desk(loop, "Ada"), 0)
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        origin, token = address.split("/#")
        with httpx.Client(base_url=origin, headers={TOKEN_HEADER: token, "Origin": origin}) as client:
            yield client
        server.shutdown()


def test_a_page_with_no_data_and_no_foreign_script_is_served(page: httpx.Client) -> None:
    found = page.get("/", headers={TOKEN_HEADER: ""})
    assert found.status_code == 200
    assert "script-src 'nonce-" in found.headers["Content-Security-Policy"]
    assert "question 0" not in found.text and "NONCE" not in found.text
    assert page.get("/rounds.html").status_code == 404


def test_questions_are_asked_answered_skipped_and_looked_at_again(page: httpx.Client, loop: LoopFolder) -> None:
    first = page.post("/next", json={}).json()
    assert first["progress"] | {"yours": 0, "complete": 0, "comparisons": 2} == first["progress"]
    key = first["question"]["comparison_id"]
    second = page.post("/answer", json={"comparison_id": key, "result": {"choice": 0}, "seconds": 3.25}).json()
    assert second["question"]["comparison_id"] != key
    again = page.post("/question", json={"comparison_id": key}).json()
    assert again["question"]["answer"] == {"choice": 0}
    last = page.post("/skip", json={"comparison_id": second["question"]["comparison_id"]}).json()
    assert last["question"]["comparison_id"] == second["question"]["comparison_id"]
    counts = loop.label_store.count(ROUND, "train")
    assert (counts.labels, counts.skipped) == (1, 1)


def test_what_is_no_answer_is_a_sentence(page: httpx.Client) -> None:
    key = page.post("/next", json={}).json()["question"]["comparison_id"]
    found = page.post("/answer", json={"comparison_id": key, "result": {"choice": 9}})
    assert found.status_code == 422
    assert found.json()["error"].endswith(".")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {TOKEN_HEADER: "guessed"}}, 403),
        ({"headers": {TOKEN_HEADER: ""}}, 403),
        ({"headers": {"Origin": "http://evil.example"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"headers": {"Host": "evil.example"}}, 421),
        ({"headers": {"Content-Type": "text/plain"}}, 415),
        ({"content": b"{"}, 400),
        ({"content": b"[1]"}, 400),
        ({"content": b"[" * 100_000}, 400),
        ({"content": b'{"result":' + b"[" * 101 + b"]" * 101 + b"}"}, 400),
        ({"content": json.dumps({"comparison_id": 7}).encode()}, 400),
        ({"content": json.dumps({"seconds": "long"}).encode()}, 400),
        ({"content": b" " * (MOST_BYTES + 1)}, 413),
    ],
)
def test_other_requests_are_refused_in_a_sentence(changes: dict[str, Any], status: int, page: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"} | changes.get("headers", {})
    found = page.post("/next", content=changes.get("content", b"{}"), headers=headers)
    assert found.status_code == status
    assert found.json()["error"].endswith(".")
    assert "question" not in found.json()


def test_a_foreign_name_gets_not_even_the_page(page: httpx.Client) -> None:
    assert page.get("/", headers={"Host": "evil.example"}).status_code == 421
    assert page.get("/", headers={"Host": "["}).status_code == 421
    assert page.post("/nothing", json={}).status_code == 404


def test_whoever_closes_the_page_is_told_what_comes_next(
    loop: LoopFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("socketserver.BaseServer.serve_forever", interrupted)
    monkeypatch.setattr("rlhf_dagster.cli.label_studio.stop_when_asked", lambda: None)
    judge._serve(Desk(loop, "Ada"), "Ada", 0, browser=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"What was judged is kept. What comes next: rlhf run train_round --round {ROUND} {loop.option}"
