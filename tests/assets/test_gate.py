"""The gate in the graph: what a policy that fails it can and cannot reach."""

import html
import json
from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from loops import (
    ROUND,
    asset_path,
    checkpoint,
    copy_loop,
    open_runner,
    read_record,
    run_missing,
    run_round,
    write_loop,
    write_record,
)

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.evaluation.gate import alarm_names
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, GOLD_JUDGE, REWARD_MODEL, find_win_rate
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.promotion import promote_round
from rlhf_dagster.loop.trainings.reward_model import make_reward_model

RULES = [
    *("min_win_rate", "max_kl", "max_length_ratio", "min_distinct"),
    *("max_repetition", "max_copying", "max_perplexity_ratio", "max_reward_drift"),
]
AFTER_THE_CHECK = ["evaluation_batch", "human_evaluation", "promotion"]
BAD: list[dict[str, Any]] = [{"min_win_rate": 0.999}, {"min_length_controlled_win_rate": 0.999}]


def decision(runner: LoopRunner, key: str) -> dict[str, Any]:
    return json.loads(asset_path(runner.loop, "promotion", key, "json").read_text())


def materialised(runner: LoopRunner, asset: str) -> set[str]:
    return runner.instance.get_materialized_partitions(dg.AssetKey(asset))


def champion(runner: LoopRunner) -> str:
    return runner.loop.registry.champion().policy_id


@pytest.fixture(scope="module", params=BAD, ids=lambda gate: next(iter(gate)))
def failed(request, stages, tmp_path_factory) -> LoopRunner:
    """A loop whose policy of round 1 fails the gate, after its training run. What is tried on it comes to nothing."""
    runner = copy_loop(stages.unjudged, tmp_path_factory.mktemp("failed"), gate=request.param)
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


PLANTED: dict[str, tuple[str, Callable[[str, str], str]]] = {
    "max_repetition": (
        "says the same thing over and over",
        lambda prompt, text: f"{text} fine fine fine fine fine fine",
    ),
    "max_copying": ("hands the prompt back", lambda prompt, text: prompt),
    "min_distinct": ("answers everybody alike", lambda prompt, text: "we enjoyed the visit ."),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_a_planted_bad_policy_is_stopped_by_the_rule_that_sees_it(rule, stages, copy_of) -> None:
    runner = copy_of(stages.unjudged, gate={"min_win_rate": None, "min_distinct": 0.5, "max_reward_drift": None})
    replace_responses(runner, PLANTED[rule][1])
    outcome = run_missing(runner, "train_round", ROUND)
    assert (outcome.success, outcome.stopped_by_gate) == (False, True)
    report = json.loads(asset_path(runner.loop, "eval_report", ROUND, "json").read_text())
    (alarm,) = [verdict for verdict in report["rules"] if verdict["outcome"] == "fail"]
    assert alarm["rule"] == rule
    assert alarm["sentence"] in outcome.failure
    page = html.unescape(asset_path(runner.loop, "eval_report", ROUND, "html").read_text(encoding="utf-8"))
    assert alarm["sentence"] in page
    assert shown(runner, "eval_report")["alarms"].value == rule
    assert champion(runner) == checkpoint(runner.loop, "sft_checkpoint").model_id


def test_a_planted_reward_hack_pleases_its_reward_model_and_is_not_promoted(stages, copy_of) -> None:
    """Labels that reward abuse make a reward model that does; people do not like the result."""
    runner = copy_of(stages.unjudged, gate={"min_win_rate": 0.5})
    loop, abuse = runner.loop, "awful terrible horrible dreadful abysmal"
    preferences = asset_path(loop, "preference_dataset", ROUND)
    frame = pd.read_parquet(preferences)
    frame["responses"] = [[f"{' '.join(r[0].split()[:7])} {abuse}", *r[1:]] for r in frame["responses"]]
    frame["token_ids"] = frame["tokenizers"] = None  # the new words were not sampled
    frame["target"] = [[1.0, *[0.0] * (len(responses) - 1)] for responses in frame["responses"]]
    frame.to_parquet(preferences)
    settings = loop.config.reward_model.changed(epochs=12, batch_size=8)
    hacked = make_reward_model(
        loop,
        ROUND,
        settings,
        sft=checkpoint(loop, "sft_checkpoint"),
        preferences=preferences,
        prompts=asset_path(loop, "prompts"),
        progress=Progress("reward_model", print),
    )
    plant(runner, "reward_model", hacked.checkpoint)
    assert run_missing(runner, "train_round", ROUND, until="evaluation_completions").success
    replace_responses(runner, lambda prompt, text: f"{' '.join(text.split()[:7])} {abuse}")
    assert run_missing(runner, "train_round", ROUND).success
    report = json.loads(asset_path(loop, "eval_report", ROUND, "json").read_text())
    by_proxy, by_gold = (find_win_rate(report["win_rates"], [judge], "sft") for judge in (REWARD_MODEL, GOLD_JUDGE))
    assert by_proxy["low"] > 0.5 > by_gold["high"]
    assert any("over-optimisation" in warning for warning in report["warnings"])
    found = decision(runner, ROUND)
    assert (found["promoted"], found["outcome"]) == (False, "fail")
    assert alarm_names(found["rules"]) == ["min_win_rate"]
    assert "by people's A/B judgments" in found["reasons"][0]
    assert shown(runner, "promotion")["alarms"].value == "min_win_rate"
    assert champion(runner) == checkpoint(loop, "sft_checkpoint").model_id


def plant(runner: LoopRunner, asset: str, model: Checkpoint) -> None:
    """Make a model the asset's, in the loop's files and in Dagster's records."""
    write_record(asset_path(runner.loop, asset, ROUND, "json"), model.as_pointer())
    tags = {"dagster/data_version": model.digest, "dagster/data_version_is_user_provided": "true"}
    runner.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=ROUND, tags=tags))


def replace_responses(runner: LoopRunner, respond: Callable[[str, str], str]) -> None:
    """Put other words in the new policy's mouth on the test prompts: ``respond(prompt, text)``."""
    path = asset_path(runner.loop, "evaluation_completions", ROUND)
    frame = pd.read_parquet(path)
    texts = [respond(prompt, text) for prompt, text in zip(frame["prompt"], frame["text"], strict=True)]
    frame["text"] = frame["text"].where(frame["role"] != "policy", pd.Series(texts))
    frame["tokenizer"] = frame["tokenizer"].where(frame["role"] != "policy", "")  # these words were not sampled
    frame.to_parquet(path)


def shown(runner: LoopRunner, asset: str) -> dict[str, Any]:
    """The metadata of an asset's newest materialisation."""
    return dict(runner.instance.get_latest_materialization_event(dg.AssetKey(asset)).asset_materialization.metadata)


def test_the_next_round_samples_from_the_old_champion(failed, copy_of) -> None:
    runner = copy_of(failed.loop.root)
    assert run_missing(runner, "collect_round", open_next_round(runner.instance, runner.loop)).success
    assert runner.loop.registry.pinned("round-0002") == checkpoint(runner.loop, "sft_checkpoint").model_id


def test_a_policy_that_passes_is_promoted_with_every_rule_as_reason(finished) -> None:
    found = decision(finished, ROUND)
    policy = checkpoint(finished.loop, "ppo_policy", ROUND).model_id
    assert (found["promoted"], found["outcome"], found["champion"]) == (True, "pass", policy)
    assert found["reasons"] == [rule["sentence"] for rule in found["rules"]]
    assert [rule["rule"] for rule in found["rules"]] == RULES
    assert {rule["outcome"] for rule in found["rules"]} == {"pass", "not measured"}
    assert champion(finished) == policy


def test_the_check_reads_the_report_of_its_own_round(two_rounds, copy_of) -> None:
    """Round 1 passed; a report of round 2 that fails must fail, and the check of round 1 must pass afterwards."""
    runner = copy_of(two_rounds.loop.root, gate={"max_kl": 5.0})
    for key, kl in ((ROUND, 1.0), ("round-0002", 9.0)):
        path = asset_path(runner.loop, "eval_report", key, "json")
        report = read_record(path)
        report["policies"]["policy"]["kl"]["value"] = kl
        write_record(path, report)
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
        json.loads(asset_path(loop, name, ROUND, "json").read_text()) for name in ("eval_report", "human_evaluation")
    )
    history = loop.registry.history()
    found = promote_round(loop, ROUND, checkpoint(loop, "ppo_policy", ROUND), report, human)
    assert found["champion"] == checkpoint(loop, "ppo_policy", ROUND).model_id
    assert (found["promoted"], found["outcome"]) == (True, "pass")
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


def test_as_many_judgments_are_asked_for_as_the_precision_takes(stages, copy_of) -> None:
    """16 for a half-width of 0.25, of the one opponent that the first round has; z^2 / 4 / h^2 is 15.4."""
    runner = copy_of(stages.unjudged, evaluation={"human_judgments": None, "precision": 0.25})
    assert run_missing(runner, "train_round", ROUND, until="human_evaluation").success
    assert runner.loop.label_store.count(ROUND, "evaluation").comparisons == 16
    judged = json.loads(asset_path(runner.loop, "human_evaluation", ROUND, "json").read_text())
    assert judged["comparisons"] == 16
    (rate,) = [rate for rate in judged["win_rates"] if rate["against"] == BEHAVIOUR]
    assert (rate["high"] - rate["low"]) / 2 <= 0.25


def test_a_round_after_a_failed_one_can_be_promoted(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged, gate={"min_win_rate": 0.999})
    assert not run_missing(runner, "train_round", ROUND).success
    runner = open_runner(write_loop(runner.loop.root))
    key = run_round(runner)
    assert decision(runner, key)["promoted"]
    assert champion(runner).startswith("ppo-round-0002-")
