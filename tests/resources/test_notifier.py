"""One message for a run that failed, wherever it goes; the address is never shown."""

import json
import logging
from collections.abc import Iterator

import pytest
from fake_server import FakeServer, serving

from rlhf_dagster.automation.failures import RunFailure, message
from rlhf_dagster.errors import UserError
from rlhf_dagster.resources.notifier import Notifier

FACTS = {
    "job": "train_round",
    "stage": "reward_model",
    "round": "round-0002",
    "reason": "no label is in the train split.",
    "link": "http://127.0.0.1:3000/runs/1",
}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with serving(lambda _: (200, {"ok": True})) as server:
        monkeypatch.setenv("HOOK", f"{server.url}/secret-path")
        yield server


def test_the_text_says_stage_reason_and_link() -> None:
    failure = RunFailure("reward_model", "no label is in the train split.")
    assert message(FACTS, failure) == (
        "train_round of round-0002 failed at reward_model: no label is in the train split. http://127.0.0.1:3000/runs/1"
    )
    assert message(FACTS, RunFailure("eval_report", "The KL is 30 nats.", by_gate=True)) == (
        "train_round of round-0002 stops at the gate: The KL is 30 nats. http://127.0.0.1:3000/runs/1"
    )
    stopped = message(FACTS, RunFailure("ppo_policy", "Stopped by Ada: wrong labels.", stopped=True))
    assert stopped.startswith("train_round of round-0002 stops at ppo_policy: Stopped by Ada: wrong labels. http")
    assert message(FACTS | {"round": ""}, RunFailure("", "it is gone.")).startswith("train_round failed: it is gone.")


def test_a_webhook_gets_text_and_facts(hook: FakeServer) -> None:
    Notifier(kind="webhook", variable="HOOK").send("it failed", FACTS, logging.getLogger())
    assert [json.loads(asked.body) for asked in hook.asked] == [{"text": "it failed", **FACTS}]


def test_a_message_is_not_sent_on_elsewhere(hook: FakeServer) -> None:
    for status in (301, 302, 307, 308):
        hook.answer = lambda _, status=status: (status, "", {"Location": f"{hook.url}/elsewhere"})
        with pytest.raises(UserError, match=rf"webhook of HOOK sends messages on elsewhere \({status}\)") as refused:
            Notifier(kind="webhook", variable="HOOK").send("it failed", FACTS, logging.getLogger())
        assert "secret-path" not in str(refused.value)
    assert {asked.path for asked in hook.asked} == {"/secret-path"}


def test_slack_gets_the_text_in_the_channel(hook: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slack = pytest.importorskip("dagster_slack", reason="Messages to Slack need: pip install 'rlhf-dagster[slack]'.")
    from slack_sdk import WebClient

    client = WebClient("token", base_url=f"{hook.url}/")
    monkeypatch.setattr(slack.SlackResource, "get_client", lambda _: client)
    notifier = Notifier(kind="slack", variable="HOOK", channel="#rlhf")
    notifier.send("it failed", FACTS, logging.getLogger())
    assert "chat.postMessage" in hook.asked[0].path
    assert json.loads(hook.asked[0].body) == {"channel": "#rlhf", "text": "it failed"}
    hook.answer = lambda _: (200, {"ok": False, "error": "channel_not_found"})
    with pytest.raises(UserError, match="Slack did not take the message for #rlhf: channel_not_found"):
        notifier.send("it failed", FACTS, logging.getLogger())


def test_a_webhook_that_refuses_is_one_sentence_without_its_address(hook: FakeServer) -> None:
    hook.answer = lambda _: (500, {})
    with pytest.raises(UserError, match=r"^The webhook of HOOK did not take the message \(500\)") as refused:
        Notifier(kind="webhook", variable="HOOK").send("it failed", FACTS, logging.getLogger())
    assert "secret-path" not in str(refused.value)


def test_a_webhook_that_is_away_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/secret-path")
    with pytest.raises(UserError, match="ConnectionError") as refused:
        Notifier(kind="webhook", variable="HOOK").send("it failed", FACTS, logging.getLogger())
    assert "secret-path" not in str(refused.value)


def test_a_missing_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    for kind in ("webhook", "slack"):
        with pytest.raises(UserError, match="HOOK is not set"):
            Notifier(kind=kind, variable="HOOK").send("it failed", FACTS, logging.getLogger())


def test_the_log_is_the_default(caplog: pytest.LogCaptureFixture) -> None:
    Notifier().send("it failed", FACTS, logging.getLogger("test"))
    assert caplog.messages == ["it failed"]
