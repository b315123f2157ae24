import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.launcher import DefaultRunLauncher
from loops import ROUND, TRAIN, open_runner, run_missing

import rlhf_dagster.assets.reward as reward_assets
from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.instance import CODE_LOCATION, PROCESS_TAG, close_dead_runs, run_tags
from rlhf_dagster.automation.jobs import COLLECT, LEARN, PREPARE, RELEASE
from rlhf_dagster.automation.launcher import require_unwatched
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.processes import process_tag
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.loop_names import GPU_POOL


def runs_of(runner: LoopRunner, asset: str) -> int:
    """How often an asset was materialised."""
    found = runner.instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey(asset)), limit=100)
    return len(found.records)


def test_nothing_is_missing_from_what_is_finished(finished) -> None:
    assert finished.missing("prepare", None) == []
    assert finished.missing("collect_round", ROUND) == []
    assert finished.missing("train_round", ROUND) == []


def test_a_round_is_missing_by_itself(finished) -> None:
    assert finished.missing("collect_round", "round-0002") == COLLECT
    assert finished.missing("train_round", "round-0002") == TRAIN + RELEASE
    assert finished.missing("train_round", "round-0002", until="reward_model") == LEARN[:-1]
    assert finished.missing("release_round", "round-0002") == RELEASE


def test_what_was_made_before_is_not_missing(stages) -> None:
    runner = open_runner(stages.unjudged)
    assert runner.missing("train_round", ROUND) == ["eval_report", "evaluation_batch", *RELEASE]
    assert runner.missing("train_round", ROUND, until="evaluation_completions") == []


def test_what_is_downstream_of_a_missing_asset_is_missing_and_the_rest_is_not(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    runner.instance.wipe_assets([dg.AssetKey("preference_batch")])
    assert runner.missing("collect_round", ROUND) == ["preference_batch"]
    runner.instance.wipe_assets([dg.AssetKey("label_quality")])
    # The reward model, its accuracy and the policy do not need it; what is said about them does.
    assert runner.missing("train_round", ROUND) == ["label_quality", "eval_report", "evaluation_batch", *RELEASE]
    runner.instance.wipe_assets([dg.AssetKey("demonstrations")])
    assert runner.missing("prepare", None) == ["demonstrations", "pretraining_text", "base_model", "sft_checkpoint"]


def test_an_asset_that_a_job_does_not_have_is_one_sentence(finished) -> None:
    with pytest.raises(UserError, match="Job prepare has no asset promotion; it has prompts, demonstration_batch"):
        finished.missing("prepare", None, until="promotion")
    assert finished.assets("prepare", until="demonstrations") == PREPARE[:3]


def test_a_run_that_failed_goes_on_where_it_stopped(stages, copy_of, monkeypatch) -> None:
    runner = copy_of(stages.prepared)
    key = open_next_round(runner.instance, runner.loop)
    assert run_missing(runner, "collect_round", key).success

    def fail(*_: object, **__: object) -> None:
        raise UserError("The reward model cannot be measured today.")

    with monkeypatch.context() as patched:
        patched.setattr(reward_assets, "measure_reward_model", fail)
        outcome = run_missing(runner, "train_round", key)
    assert (outcome.success, outcome.failed_asset) == (False, "reward_model_accuracy")
    assert outcome.failure == "The reward model cannot be measured today."
    made = {asset: runs_of(runner, asset) for asset in TRAIN}
    # No policy learns from a reward model that is not measured.
    assert made["preference_dataset"] == made["reward_model"] == 1
    assert made["reward_model_accuracy"] == made["ppo_policy"] == made["eval_report"] == 0
    assert runner.missing("train_round", key) == [*TRAIN[TRAIN.index("reward_model_accuracy") :], *RELEASE]
    assert run_missing(runner, "train_round", key).success
    assert {asset: runs_of(runner, asset) for asset in [*COLLECT, *TRAIN, *RELEASE]} == dict.fromkeys(
        [*COLLECT, *TRAIN, *RELEASE], 1
    )
    assert runner.missing("train_round", key) == []


def test_an_error_of_ours_is_told_by_its_own_text(stages, copy_of, monkeypatch) -> None:
    runner = copy_of(stages.unjudged)

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(reward_assets, "measure_reward_model", fail)
    outcome = runner.run("train_round", ROUND, ["reward_model_accuracy"])
    assert (outcome.success, outcome.failed_asset) == (False, "reward_model_accuracy")
    assert outcome.failure == "ZeroDivisionError: division by zero"


def test_a_listener_hears_the_events_of_its_run_alone(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    heard: list[dg.DagsterEvent] = []
    assert runner.run("prepare", None, ["prompts"], heard.append).success
    made = [event for event in heard if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION]
    assert [event.asset_key.to_user_string() for event in made] == ["prompts"]
    before = len(heard)
    assert runner.run("prepare", None, ["prompts"]).success
    assert len(heard) == before


def test_a_run_is_in_the_timeline_of_its_code_location_and_can_be_launched_again_there(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    run = runner.instance.get_run_by_id(runner.run("prepare", None, ["prompts"]).run_id)
    assert run.remote_job_origin
    assert run.remote_job_origin.repository_origin.get_label() == f"__repository__@{CODE_LOCATION}"
    assert (run.remote_job_origin.job_name, run.tags["rlhf/loop"]) == ("prepare", "small")
    assert dg.validate_run_config(runner.definitions.resolve_job_def("prepare"), run.run_config)
    # By a person: the daemon leaves a run to whoever has typed its command.
    assert run.tags["dagster/max_retries"] == "0"
    other = runner.instance.create_run_for_job(runner.definitions.resolve_job_def("prepare"))
    assert other.remote_job_origin is None


def test_the_gpu_pool_holds_one_step(finished) -> None:
    limits = {limit.name: limit.limit for limit in finished.instance.event_log_storage.get_pool_limits()}
    assert limits[GPU_POOL] == 1


def _dead_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return f"{process.pid}:12345"


@pytest.mark.parametrize("dead", [True, False])
def test_a_run_whose_process_is_gone_is_closed_and_its_place_in_the_pool_is_free(stages, copy_of, dead) -> None:
    runner = copy_of(stages.prepared)
    instance, storage = runner.instance, runner.instance.event_log_storage
    tags = {PROCESS_TAG: _dead_process()} if dead else run_tags(runner.loop)
    run = instance.create_run_for_job(
        runner.definitions.resolve_job_def("prepare"), status=dg.DagsterRunStatus.STARTED, tags=tags
    )
    assert storage.claim_concurrency_slot(GPU_POOL, run.run_id, "base_model").is_claimed
    assert close_dead_runs(instance) == ([run.run_id] if dead else [])
    status = instance.get_run_by_id(run.run_id).status
    assert status == (dg.DagsterRunStatus.FAILURE if dead else dg.DagsterRunStatus.STARTED)
    assert storage.get_concurrency_info(GPU_POOL).active_slot_count == (0 if dead else 1)


def test_runs_that_others_execute_are_left_alone(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    job = runner.definitions.resolve_job_def("prepare")
    runner.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert close_dead_runs(runner.instance) == []


def test_a_pid_that_another_process_has_now_is_dead(stages, copy_of) -> None:
    """The tag holds when the process started, so that a reused pid is not taken for it."""
    runner = copy_of(stages.prepared)
    pid, started = run_tags(runner.loop)[PROCESS_TAG].partition("@")[0].split(":")
    job = runner.definitions.resolve_job_def("prepare")
    run = runner.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: f"{pid}:{int(started) - 1}"}
    )
    assert close_dead_runs(runner.instance) == [run.run_id]


def test_opening_a_loop_closes_what_a_killed_process_left(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    job = runner.definitions.resolve_job_def("prepare")
    run = runner.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: _dead_process()}
    )
    again = open_runner(runner.loop.root)
    assert again.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def test_a_loop_that_another_process_works_on_is_left_alone(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        tags = {PROCESS_TAG: process_tag(other.pid)}
        job = runner.definitions.resolve_job_def("train_round")
        runner.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
        with pytest.raises(UserError, match=rf"Process {other.pid} is running train_round on this loop"):
            runner.run("train_round", ROUND, ["label_quality"])
    finally:
        other.communicate(b"\n")


def test_a_run_of_another_host_is_neither_closed_nor_joined(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    job = runner.definitions.resolve_job_def("train_round")
    run = runner.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: f"{_dead_process()}@gpu-7"}
    )
    assert close_dead_runs(runner.instance) == []
    with pytest.raises(UserError, match=rf"Run {run.run_id[:8]} of train_round is at work on this loop on gpu-7"):
        runner.run("train_round", ROUND, ["label_quality"])


def test_a_launcher_that_would_take_a_run_of_this_process_for_dead_is_refused(tmp_path, stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    watched = {"run_launcher": {"module": __name__, "class": "Watching"}, "run_monitoring": {"enabled": True}}
    unwatched = {"run_launcher": watched["run_launcher"], "run_monitoring": {"enabled": False}}
    with dg.instance_for_test(overrides=unwatched) as instance:
        require_unwatched(instance)
    with (
        dg.instance_for_test(overrides=watched) as instance,
        pytest.raises(UserError, match=r"watches its runs by Watching, .* `dagster job launch`"),
    ):
        LoopRunner(runner.loop, instance).run("train_round", ROUND, ["label_quality"])


class Watching(DefaultRunLauncher):
    """As the launchers that start containers: it looks for the worker of every run."""

    supports_check_run_worker_health = True


def test_a_pool_that_a_run_of_the_ui_holds_is_said(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    run = runner.instance.create_run_for_job(runner.definitions.resolve_job_def("prepare"))
    runner.instance.event_log_storage.claim_concurrency_slot(GPU_POOL, run.run_id, "base_model")
    with pytest.raises(UserError, match=rf"Run {run.run_id[:8]} holds the `gpu` pool"):
        runner.run("train_round", ROUND, ["label_quality"])
