"""The gate in the graph: what a policy that fails it can and cannot reach."""

import json
from typing import Any

import dagster as dg
import pytest
from loops import ROUND, checkpoint, open_runner, run_missing, run_round, write_loop

from rlhf_dagster.automation.rounds import open_next_round
from rlhf_dagster.automation.run import LoopRunner
from rlhf_dagster.stages.promotion import promote_round

AFTER_THE_CHECK = ["evaluation_batch", "human_evaluation", "promotion"]
BAD: list[dict[str, Any]] = [{"min_win_rate": 0.999}, {"max_kl": 1e-6}]


def decision(runner: LoopRunner, key: str) -> dict[str, Any]:
    return json.loads(runner.loop.asset_path("promotion", key, "json").read_text())


def materialised(runner: LoopRunner, asset: str) -> set[str]:
    return runner.instance.get_materialized_partitions(dg.AssetKey(asset))


def champion(runner: LoopRunner) -> str:
    return runner.loop.registry.champion().policy_id


@pytest.fixture(params=BAD, ids=lambda gate: next(iter(gate)))
def failed(request, stages, copy_of) -> LoopRunner:
    """A loop whose policy of round 1 fails the gate, after its training run."""
    runner = copy_of(stages.unjudged, gate=request.param)
    outcome = run_missing(runner, "train_round", ROUND)
    assert (outcome.success, outcome.stopped_by_gate, outcome.failed_asset) == (False, True, "eval_report")
    return runner


def test_a_policy_that_fails_stops_at_the_report(failed) -> None:
    assert materialised(failed, "eval_report") == {ROUND}
    assert all(materialised(failed, asset) == set() for asset in AFTER_THE_CHECK)
    assert champion(failed) == checkpoint(failed.loop, "sft_checkpoint").model_id
    assert failed.loop.label_store.count(ROUND, "evaluation").comparisons == 0
    check = dg.AssetCheckKey(dg.AssetKey("eval_report"), "may_be_promoted")
    record = failed.instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    assert (evaluation.passed, evaluation.blocking) == (False, True)
    assert evaluation.description.endswith(".")


def test_nobody_is_asked_to_judge_it_when_the_rest_is_launched_alone(failed) -> None:
    before = champion(failed)
    outcome = failed.run("train_round", ROUND, AFTER_THE_CHECK)
    assert (outcome.success, outcome.failed_asset) == (False, "evaluation_batch")
    assert checkpoint(failed.loop, "ppo_policy", ROUND).model_id in outcome.failure
    assert failed.loop.label_store.count(ROUND, "evaluation").comparisons == 0
    assert champion(failed) == before


@pytest.mark.parametrize("gate", BAD, ids=lambda gate: next(iter(gate)))
def test_promotion_launched_alone_asks_the_gate_itself(gate, finished, copy_of) -> None:
    runner = copy_of(finished.loop.root, gate=gate)
    history = runner.loop.registry.history()
    assert runner.run("train_round", ROUND, ["promotion"]).success
    found = decision(runner, ROUND)
    assert (found["promoted"], found["outcome"]) == (False, "fail")
    assert found["reasons"]
    assert runner.loop.registry.history() == history


def test_the_next_round_samples_from_the_old_champion(failed) -> None:
    assert run_missing(failed, "collect_round", open_next_round(failed.instance)).success
    assert failed.loop.registry.pinned("round-0002") == checkpoint(failed.loop, "sft_checkpoint").model_id


def test_a_policy_that_passes_is_promoted_with_every_rule_as_reason(finished) -> None:
    found = decision(finished, ROUND)
    policy = checkpoint(finished.loop, "ppo_policy", ROUND).model_id
    assert (found["promoted"], found["outcome"], found["champion"]) == (True, "pass", policy)
    assert len(found["reasons"]) == 4
    assert champion(finished) == policy


def test_the_check_reads_the_report_of_its_own_round(two_rounds, copy_of) -> None:
    """Round 1 passed; a report of round 2 that fails must fail, and the check of round 1 must pass afterwards."""
    runner = copy_of(two_rounds.loop.root, gate={"max_kl": 5.0})
    for key, kl in ((ROUND, 1.0), ("round-0002", 9.0)):
        path = runner.loop.asset_path("eval_report", key, "json")
        report = json.loads(path.read_text())
        report["policies"]["policy"]["kl"]["value"] = kl
        path.write_text(json.dumps(report))
    check = dg.AssetCheckKey(dg.AssetKey("eval_report"), "may_be_promoted")
    job = runner.definitions.resolve_implicit_global_asset_job_def()
    for key, expected in (("round-0002", False), (ROUND, True)):
        result = job.get_subset(asset_selection=set(), asset_check_selection={check}).execute_in_process(
            instance=runner.instance, partition_key=key, raise_on_error=False
        )
        assert [evaluation.passed for evaluation in result.get_asset_check_evaluations()] == [expected]


def test_promoting_an_old_round_again_never_rolls_back(two_rounds, copy_of) -> None:
    runner = copy_of(two_rounds.loop.root)
    newest, history = champion(runner), runner.loop.registry.history()
    assert newest == checkpoint(runner.loop, "ppo_policy", "round-0002").model_id
    assert runner.run("train_round", ROUND, ["promotion"]).success
    found = decision(runner, ROUND)
    assert (found["promoted"], found["outcome"], found["champion"]) == (False, "pass", newest)
    assert "later round round-0002" in found["reasons"][0]
    assert runner.loop.registry.history() == history


def test_promoting_the_champion_again_changes_nothing(finished) -> None:
    loop = finished.loop
    report, human = (
        json.loads(loop.asset_path(name, ROUND, "json").read_text()) for name in ("eval_report", "human_evaluation")
    )
    history = loop.registry.history()
    found = promote_round(loop, ROUND, checkpoint(loop, "ppo_policy", ROUND), report, human)
    assert found["champion"] == checkpoint(loop, "ppo_policy", ROUND).model_id
    assert loop.registry.history() == history


def test_people_who_have_not_judged_enough_are_waited_for(stages, copy_of) -> None:
    """People's judgments decide, so a policy that passes by the reward model is not promoted without them."""
    runner = copy_of(stages.unjudged, label_store={"simulated_annotators": False}, gate={"min_judgments": 1})
    assert runner.assets("train_round")[-1] == "evaluation_batch"
    assert run_missing(runner, "train_round", ROUND).success
    assert run_missing(runner, "release_round", ROUND).success
    found = decision(runner, ROUND)
    assert (found["promoted"], found["outcome"]) == (False, "not enough judgments")


def test_without_ab_judgments_the_reward_model_decides(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged, evaluation={"human_judgments": 0})
    assert run_missing(runner, "train_round", ROUND).success
    found = decision(runner, ROUND)
    assert (found["promoted"], found["outcome"]) == (True, "pass")
    assert any("reward model" in reason for reason in found["reasons"])
    assert runner.loop.label_store.count(ROUND, "evaluation").comparisons == 0


def test_a_round_after_a_failed_one_can_be_promoted(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged, gate={"min_win_rate": 0.999})
    assert not run_missing(runner, "train_round", ROUND).success
    runner = open_runner(write_loop(runner.loop.root))
    key = run_round(runner)
    assert decision(runner, key)["promoted"]
    assert champion(runner).startswith("ppo-round-0002-")
