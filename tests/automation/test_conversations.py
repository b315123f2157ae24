"""The way back: logs named in loop.yaml, the command that reads them, and the sensor that watches them."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from conversation_logs import chat_line, write_log
from loops import assert_one_sentence, rlhf, rlhf_here, write_loop

from rlhf_dagster.automation.conversations import WAITS_FOR
from rlhf_dagster.automation.sensors import loop_automation
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.data.conversations.keeping import LINEAGE
from rlhf_dagster.lineage.stop_cord import pull, reset
from rlhf_dagster.loop.folder import LoopFolder

MANY = 120
PEOPLE = {
    "data": {"source": "imports", "feedback": {"logs": ["logs/chats"], "personal_data": "keep", "min_new": 10}},
    "label_store": {"simulated_annotators": False},
    "sft": {"chat": True},
    "evaluation": {"prompts": 24, "human_judgments": 24},
}


def asked(number: int) -> dict[str, Any]:
    return chat_line(f"Question {number}", user=f"user {number % 60}")


def log_of(runner: LoopRunner) -> Path:
    return runner.loop.root / "logs" / "chats" / "monday.jsonl"


@pytest.fixture
def runner(tmp_path: Path) -> LoopRunner:
    found = LoopRunner.open(LoopFolder.open(write_loop(tmp_path / "loop", **PEOPLE)))
    write_log(log_of(found), map(asked, range(MANY)))
    return found


def tick(runner: LoopRunner, cursor: str | None = None) -> dg.SensorResult:
    sensor = next(one for one in loop_automation(runner.loop.config)[1] if one.name == "logged_conversations")
    resources = {"loop": runner.loop}
    with dg.build_sensor_context(instance=runner.instance, resources=resources, cursor=cursor) as context:
        return sensor(context)  # type: ignore[no-any-return]


def why_not(result: dg.SensorResult) -> str:
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    return result.skip_reason.skip_message or ""


def test_the_command_makes_prompts_of_what_is_logged_and_says_what_it_left_out(runner: LoopRunner) -> None:
    loop = runner.loop
    with log_of(runner).open("a", encoding="utf-8") as log:
        log.write(json.dumps(chat_line("No", consent=False)) + "\n{broken\n")
    dry = rlhf_here("feedback", "--dry-run", "--loop", loop.root)
    assert (dry.returncode, loop.has_table("prompts"), loop.store.exists(LINEAGE)) == (0, False, False)
    done = rlhf("feedback", "--loop", loop.root)
    assert done.returncode == 0, done.stderr
    assert dry.stdout.splitlines()[:-1] == done.stdout.splitlines()[:-1]
    assert f"{MANY + 1} conversations on {MANY + 2} lines: {MANY} are prompts." in done.stdout
    assert "1 are left out: without consent." in done.stdout
    assert f"logs/chats/monday.jsonl, line {MANY + 2}: not valid JSON" in done.stderr
    prompts = loop.table("prompts")
    assert prompts is not None
    assert (len(prompts), set(prompts["source"])) == (MANY, {"logs/chats/monday.jsonl"})
    assert loop.store.exists(LINEAGE)
    made = runner.instance.get_latest_materialization_event(dg.AssetKey("prompts"))
    assert made is not None
    assert made.asset_materialization is not None
    assert made.asset_materialization.metadata["prompts_from_logs"].value == MANY
    counts = json.loads(rlhf_here("feedback", "--json", "--dry-run", "--loop", loop.root).stdout)
    assert counts == loop.json("prompts")


def test_without_a_log_the_command_is_one_sentence_and_there_is_no_sensor(tmp_path: Path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "loop"))
    assert_one_sentence(rlhf_here("feedback", "--loop", loop.root), "`data.feedback.logs` names no log")
    assert "logged_conversations" not in [sensor.name for sensor in loop_automation(loop.config)[1]]


def test_the_sensor_has_prompts_made_once_enough_is_new_or_something_is_gone(runner: LoopRunner) -> None:
    first = tick(runner)
    (request,) = first.run_requests or []
    assert request.asset_selection == [dg.AssetKey("prompts")]
    # A run that fails is not repeated before the log changes.
    assert [one.run_key for one in tick(runner, first.cursor).run_requests or []] == [request.run_key]
    assert runner.run("prepare", assets=["prompts"]).success
    assert why_not(tick(runner, first.cursor)) == "0 lines of the logs are new; data.feedback.min_new is 10."
    write_log(log_of(runner), map(asked, range(MANY + 9)))
    assert "9 lines of the logs are new" in why_not(tick(runner, first.cursor))
    write_log(log_of(runner), map(asked, range(MANY + 10)))
    (second,) = tick(runner, first.cursor).run_requests or []
    assert second.run_key != request.run_key
    write_log(log_of(runner), map(asked, range(1, MANY)))
    assert tick(runner, first.cursor).run_requests


def test_the_sensor_waits_for_jobs_that_read_prompts_and_for_a_stopped_loop(runner: LoopRunner) -> None:
    pull(runner.loop.store, "Ada", "too rude")
    assert "too rude" in why_not(tick(runner))
    reset(runner.loop.store, "Ada")
    definition = runner.definitions.resolve_job_def("train_round")
    run = runner.instance.create_run_for_job(definition, status=dg.DagsterRunStatus.STARTED)
    assert "train_round" in WAITS_FOR
    assert "its prompts stay until then" in why_not(tick(runner))
    runner.instance.report_run_canceled(run)
    assert tick(runner).run_requests
