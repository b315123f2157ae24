"""What goes out when a run fails: one message, with the stage, the sentence and the link."""

import json
from collections.abc import Iterator

import dagster as dg
import pytest
from fake_server import FakeServer, serving
from loops import ROUND, asset_path, run_missing

from rlhf_dagster.automation.failures import failed_runs
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.lineage.stop_cord import pull
from rlhf_dagster.resources.notifier import Notifier


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with serving(lambda _: (200, {"ok": True})) as server:
        monkeypatch.setenv("HOOK", f"{server.url}/secret-path")
        yield server


def tell(runner: LoopRunner) -> None:
    """What the daemon does with the newest run."""
    instance = runner.instance
    run = instance.get_runs(limit=1)[0]
    ended = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=ended[-1].dagster_event,
        dagster_instance=instance,
        dagster_run=run,
        resources={"loop": runner.loop, "notifier": Notifier(kind="webhook", variable="HOOK")},
    ).for_run_failure()
    failed_runs(runner.loop.config.automation)(context)


def test_a_user_error_is_told_with_its_stage_and_sentence(stages, copy_of, hook: FakeServer) -> None:
    runner = copy_of(stages.unjudged)
    asset_path(runner.loop, "preference_dataset", ROUND).write_bytes(b"not a table")
    outcome = runner.run("train_round", ROUND, ["reward_model"])
    tell(runner)
    (asked,) = hook.asked
    facts = json.loads(asked.body)
    assert (facts["job"], facts["stage"], facts["round"]) == ("train_round", "reward_model", ROUND)
    assert facts["reason"] == outcome.failure
    assert facts["link"] == f"http://127.0.0.1:3000/runs/{outcome.run_id}"
    assert facts["text"].startswith(f"train_round of {ROUND} failed at reward_model: ")


def test_a_policy_that_the_gate_stops_and_a_stopped_loop_are_no_failures(stages, copy_of, hook: FakeServer) -> None:
    runner = copy_of(stages.unjudged, gate={"min_win_rate": 0.999})
    assert run_missing(runner, "train_round", ROUND).stopped_by_gate
    tell(runner)
    pull(runner.loop.store, "Ada", "the labels are wrong")
    assert not runner.run("train_round", ROUND, ["reward_model"]).success
    tell(runner)
    texts = [json.loads(asked.body)["text"] for asked in hook.asked]
    assert texts[0].startswith(f"train_round of {ROUND} stops at the gate: Preferred to the champion on ")
    assert texts[1].startswith(f"train_round of {ROUND} stops at reward_model: Stopped by Ada: the labels are wrong. ")


def test_a_run_that_is_retried_by_itself_is_not_told(stages, copy_of, hook: FakeServer) -> None:
    runner = copy_of(stages.unjudged)
    asset_path(runner.loop, "preference_dataset", ROUND).write_bytes(b"not a table")
    run_id = runner.run("train_round", ROUND, ["reward_model"]).run_id
    runner.instance.add_run_tags(run_id, {"dagster/will_retry": "true"})
    tell(runner)
    assert hook.asked == []
