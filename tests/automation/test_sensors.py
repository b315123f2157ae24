"""Schedule and sensors on a real instance and label store: what a tick launches, and what it says where it does not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loops import ROUND, open_runner, run_missing

from rlhf_dagster.assets.rounds import open_next_round, open_rounds
from rlhf_dagster.automation.sensors import TickFailed, loop_automation
from rlhf_dagster.automation.watch import POSITION_TAG
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.lineage.stop_cord import pull, reset
from rlhf_dagster.loop.labels import simulate

AUTOMATION = {"min_new_labels": 20, "quiet_minutes": 0, "max_unlabelled": 5}
PEOPLE = {"simulated_annotators": False}


@pytest.fixture
def collected(copy_of: Callable[..., LoopRunner], stages: Any) -> LoopRunner:
    """A round whose comparisons are sent and not labelled."""
    runner = copy_of(stages.prepared, label_store=PEOPLE, automation=AUTOMATION)
    assert run_missing(runner, "collect_round", open_next_round(runner.instance, runner.loop)).success
    return runner


@pytest.fixture
def prepared(copy_of: Callable[..., LoopRunner], stages: Any) -> LoopRunner:
    return copy_of(stages.prepared, label_store=PEOPLE, automation=AUTOMATION)


@dataclass(frozen=True)
class Tick:
    run_requests: list[dg.RunRequest]
    skip_message: str
    cursor: str | None = None


def tick(runner: LoopRunner, name: str, cursor: str | None = None) -> Tick:
    """One look of a sensor or of the schedule."""
    resources = {"loop": runner.loop}
    schedules, sensors = loop_automation(runner.loop.config)
    if name == "open_round":
        with dg.build_schedule_context(instance=runner.instance, resources=resources) as context:
            found = schedules[0](context)
        if isinstance(found, dg.SkipReason):
            return Tick([], found.skip_message or "")
        return Tick([found], "")
    sensor = next(sensor for sensor in sensors if sensor.name == name)
    with dg.build_sensor_context(instance=runner.instance, resources=resources, cursor=cursor) as context:
        result = sensor(context)
    skip = result.skip_reason.skip_message if result.skip_reason else ""
    return Tick(list(result.run_requests or []), skip, result.cursor)


def label(runner: LoopRunner, purpose: str = "train", share: float = 1.0) -> None:
    """Let simulated annotators answer some of the round's comparisons."""
    loop = runner.loop
    if share == 1.0:
        simulate(loop, ROUND, purpose, Progress("annotate", print))
        return
    comparisons = loop.ledger.comparisons(ROUND, purpose)
    few = comparisons.head(round(share * len(comparisons)))
    from rlhf_dagster.labeling.store import Submission

    loop.ledger.submit_many([Submission(key, "ann-01", {"best": 0}) for key in few["comparison_id"]])


def launched(result: Any) -> list[tuple[str, str]]:
    return [(request.partition_key, request.tags.get("rlhf/why", "")) for request in result.run_requests or []]


def create_run(runner: LoopRunner, job: str, status: dg.DagsterRunStatus, **tags: str) -> dg.DagsterRun:
    definition = runner.definitions.resolve_job_def(job)
    tags = {"dagster/partition": ROUND} | {name.replace("__", "/"): value for name, value in tags.items()}
    return runner.instance.create_run_for_job(definition, status=status, tags=tags)


def test_the_schedule_opens_a_round_and_collects_it(prepared: LoopRunner) -> None:
    result = tick(prepared, "open_round")
    assert [request.partition_key for request in result.run_requests] == [ROUND]
    assert open_rounds(prepared.instance, prepared.loop) == [ROUND]


def test_the_schedule_waits_for_labels_and_says_so(collected: LoopRunner) -> None:
    result = tick(collected, "open_round")
    assert not result.run_requests
    assert result.skip_message.endswith("comparisons of open rounds still want labels; a round opens at 5 or fewer.")
    assert open_rounds(collected.instance, collected.loop) == [ROUND]


def test_the_schedule_needs_a_champion(tmp_path: Path, copy_of: Callable[..., LoopRunner], stages: Any) -> None:
    runner = copy_of(stages.prepared)
    runner.loop.store.delete("registry/history")
    assert "run the job `prepare` first" in tick(runner, "open_round").skip_message


def test_labels_are_waited_for_then_trained_on_once(collected: LoopRunner) -> None:
    nothing = tick(collected, "new_labels")
    assert nothing.skip_message.startswith(f"{ROUND}: no new usable label (0 of ")
    label(collected, share=0.25)
    few = tick(collected, "new_labels")
    assert few.skip_message == f"{ROUND}: 10 new usable labels; training starts at 20."
    label(collected)
    due = tick(collected, "new_labels")
    assert launched(due)[0][0] == ROUND
    assert "comparisons have their labels" in launched(due)[0][1]
    position = collected.loop.label_store.count(ROUND, "train").position
    assert due.run_requests[0].tags[POSITION_TAG] == str(position)
    assert due.run_requests[0].run_key == f"{ROUND}:{position}:0"
    assert run_missing(collected, "train_round", ROUND).success
    assert tick(collected, "new_labels").skip_message == "No round waits for labels."


def test_one_training_at_a_time(collected: LoopRunner) -> None:
    label(collected)
    run = create_run(collected, "train_round", dg.DagsterRunStatus.STARTED)
    result = tick(collected, "new_labels")
    assert result.skip_message == f"train_round of {ROUND} is running (run {run.run_id[:8]}); one training at a time."


def test_a_failed_training_makes_no_storm_and_loses_nothing(collected: LoopRunner) -> None:
    label(collected, share=0.75)
    first = tick(collected, "new_labels").run_requests[0]
    create_run(collected, "train_round", dg.DagsterRunStatus.FAILURE, rlhf__labels_position=first.tags[POSITION_TAG])
    again = tick(collected, "new_labels")
    assert not again.run_requests
    assert "re-execute it once that is mended" in again.skip_message
    label(collected)
    more = tick(collected, "new_labels")
    assert launched(more)[0][0] == ROUND
    assert more.run_requests[0].run_key != first.run_key


def test_a_run_that_will_be_retried_is_not_doubled(collected: LoopRunner) -> None:
    label(collected)
    create_run(collected, "train_round", dg.DagsterRunStatus.FAILURE, dagster__will_retry="true")
    assert f"{ROUND} is being trained" in tick(collected, "new_labels").skip_message


def test_nothing_starts_while_the_loop_is_stopped_and_all_of_it_afterwards(collected: LoopRunner) -> None:
    label(collected)
    before = tick(collected, "new_labels").run_requests[0]
    create_run(
        collected, "train_round", dg.DagsterRunStatus.FAILURE, rlhf__labels_position="99999", rlhf__stopped="true"
    )
    pull(collected.loop.store, "Ada", "the labels are wrong")
    for name in ("open_round", "new_labels", "opened_rounds", "judgments_complete"):
        result = tick(collected, name)
        assert not result.run_requests
        assert result.skip_message == "Stopped by Ada: the labels are wrong. `rlhf resume` lets the loop go on."
    reset(collected.loop.store, "Ada")
    after = tick(collected, "new_labels").run_requests[0]
    assert after.partition_key == ROUND
    assert after.run_key != before.run_key


def test_annotators_can_stop_the_loop_and_are_not_heard_twice(
    collected: LoopRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    label(collected)
    asked = replace(
        collected.loop.label_store.count(ROUND, "train"), stop_requests=3, stop_reasons=["all responses are empty"]
    )
    monkeypatch.setattr("rlhf_dagster.labeling.embedded.EmbeddedLabelStore.count", lambda *_, **__: asked)
    stopped = tick(collected, "new_labels")
    assert "Stopped by 3 annotators of round-0001: all responses are empty." in stopped.skip_message
    reset(collected.loop.store, "Ada")
    assert tick(collected, "new_labels", stopped.cursor).run_requests
    assert json.loads(stopped.cursor) == {ROUND: 3}


def test_a_round_opened_by_hand_is_collected(prepared: LoopRunner) -> None:
    assert tick(prepared, "opened_rounds").skip_message == "Every open round is collected."
    open_next_round(prepared.instance, prepared.loop)
    first = tick(prepared, "opened_rounds")
    assert first.skip_message == f"{ROUND} was opened just now."
    assert launched(tick(prepared, "opened_rounds", first.cursor))[0][0] == ROUND


def test_judgments_are_decided_on_when_all_are_there(collected: LoopRunner) -> None:
    label(collected)
    assert run_missing(collected, "train_round", ROUND).success
    waiting = tick(collected, "judgments_complete")
    assert waiting.skip_message.endswith("A/B comparisons are not judged.")
    label(collected, "evaluation")
    assert launched(tick(collected, "judgments_complete"))[0][0] == ROUND
    assert run_missing(collected, "release_round", ROUND).success
    assert tick(collected, "judgments_complete").skip_message == "Nothing is being judged."


def test_a_dead_label_server_fails_the_tick_with_a_sentence(
    collected: LoopRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_dagster.labeling.label_studio.transport.errors import LabelStudioUnreachable

    def down(*_: object, **__: object) -> None:
        raise LabelStudioUnreachable("Label Studio at http://127.0.0.1:8080 does not answer; start it.")

    monkeypatch.setattr("rlhf_dagster.labeling.embedded.EmbeddedLabelStore.count", down)
    for name in ("open_round", "new_labels"):
        with pytest.raises(TickFailed, match=r"^Label Studio at http://127.0.0.1:8080 does not answer; start it.$"):
            tick(collected, name)


def test_a_slow_label_server_is_given_up_before_dagster_gives_up_on_the_sensor(collected: LoopRunner) -> None:
    from rlhf_dagster.automation.watch import impatient

    patient = collected.loop
    assert patient.config.label_store.timeout == 60
    assert impatient(patient).config.label_store.timeout == 20


def test_five_open_rounds_are_looked_at_and_the_oldest_that_is_due_is_trained(
    copy_of: Callable[..., LoopRunner], stages: Any
) -> None:
    settings = AUTOMATION | {"max_rounds_in_progress": 5}
    runner = copy_of(stages.prepared, label_store=PEOPLE, automation=settings, labeling={"comparisons_per_round": 6})
    for _ in range(5):
        assert run_missing(runner, "collect_round", open_next_round(runner.instance, runner.loop)).success
    result = tick(runner, "new_labels")
    assert result.skip_message.count("no new usable label") == 3
    for key in ("round-0005", "round-0004"):
        simulate(runner.loop, key, "train", Progress("annotate", print))
    assert launched(tick(runner, "new_labels"))[0][0] == "round-0004"


def test_the_graph_has_no_loop_and_loads_without_a_label_server(tmp_path: Path, stages: Any) -> None:
    runner = open_runner(stages.prepared)
    server = {"kind": "label_studio", "url": "http://127.0.0.1:1"}
    config = runner.loop.config.changed(label_store=server)
    from rlhf_dagster.build import build_loop

    definitions = build_loop(config, tmp_path)
    levels = definitions.resolve_asset_graph().toposorted_asset_keys_by_level
    names = [key.path[-1] for level in levels for key in level]
    assert len(names) == len(set(names)) >= 21
    assert (
        names.index("round_manifest") < names.index("ppo_policy") < names.index("promotion") < names.index("round_page")
    )
    dg.Definitions.validate_loadable(definitions)
