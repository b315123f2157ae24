"""Rounds whose champion is another arm's policy than PPO's: named beforehand, or chosen as the best."""

import pandas as pd
import pytest
from loops import ROUND, Stages, asset_path, checkpoint, copy_loop, read_record, run_missing, run_round

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.arms import TRAINED
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.summary import round_rows

SECOND = "round-0002"
DPO = {"batch_size": 16}


@pytest.fixture(scope="module")
def released(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    """Two rounds of a loop that releases DPO's policy and trains PPO's beside it."""
    folder = tmp_path_factory.mktemp("released") / "loop"
    runner = copy_loop(stages.unjudged, folder, arms=["ppo"], release={"arm": "dpo"}, dpo=DPO)
    outcome = run_missing(runner, "train_round", ROUND)
    assert outcome.success, outcome
    run_round(runner)
    return runner


def report_of(runner: LoopRunner, key: str = ROUND) -> dict:
    return read_record(asset_path(runner.loop, "eval_report", key, "json"))


def test_the_gate_judges_the_arm_s_policy_and_makes_it_the_champion(released: LoopRunner) -> None:
    first = checkpoint(released.loop, "dpo_policy", ROUND)
    report, decision = report_of(released), released.loop.json("promotion", ROUND)
    assert report["policy_id"] == report["policies"]["policy"]["policy_id"] == first.model_id
    assert (decision["promoted"], decision["policy"]) == (True, first.model_id)
    champions = [record.policy_id for record in released.loop.registry.history()]
    assert champions[1:] == [first.model_id, checkpoint(released.loop, "dpo_policy", SECOND).model_id]
    assert "dpo_policy" in report["training"]
    assert "ppo_policy" not in report["training"]


def test_people_compare_the_policy_that_may_be_promoted(released: LoopRunner) -> None:
    batch = pd.read_parquet(asset_path(released.loop, "evaluation_batch", ROUND))
    asked = {policy for policies in batch["policy_ids"] for policy in policies}
    assert asked == {checkpoint(released.loop, name, key).model_id for name, key in PAIR.items()}
    judged = released.loop.json("human_evaluation", ROUND)
    assert judged["policy_id"] == checkpoint(released.loop, "dpo_policy", ROUND).model_id


PAIR = {"dpo_policy": ROUND, "sft_checkpoint": ""}


def test_ppo_is_reported_beside_it(released: LoopRunner) -> None:
    arms = {arm["role"]: arm for arm in report_of(released)["arms"]}
    assert [(role, arm["name"]) for role, arm in arms.items()] == [("policy", "DPO"), ("ppo", "PPO")]
    assert arms["ppo"]["policy_id"] == checkpoint(released.loop, "ppo_policy", ROUND).model_id
    page = asset_path(released.loop, "eval_report", ROUND, "html").read_text()
    assert arms["ppo"]["policy_id"] in page


def test_the_next_round_samples_the_champion_and_ppo_starts_from_it_and_is_held_to_sft(released: LoopRunner) -> None:
    champion, sft = checkpoint(released.loop, "dpo_policy", ROUND), checkpoint(released.loop, "sft_checkpoint")
    assert released.loop.json("round_manifest", SECOND)["behaviour_policy"] == champion.model_id
    parents = read_manifest(checkpoint(released.loop, "ppo_policy", SECOND).folder)["parents"]
    assert {role: parents[role]["model_id"] for role in ("start", "sft_checkpoint")} == {
        "start": champion.model_id,
        "sft_checkpoint": sft.model_id,
    }
    assert report_of(released, SECOND)["behaviour_policy"] == champion.model_id


def test_the_summary_shows_the_policy_that_was_judged(released: LoopRunner) -> None:
    for row in round_rows(released.loop, [ROUND, SECOND]):
        assert row["policy"]["checkpoint"] == checkpoint(released.loop, "dpo_policy", row["round"]).path
        assert row["promoted"]


def test_a_round_that_was_evaluated_before_release_was_set_is_not_mistaken(stages: Stages, copy_of) -> None:
    runner = copy_of(stages.finished, release={"arm": "dpo"}, dpo=DPO)
    assert run_missing(runner, "train_round", ROUND, until="dpo_policy").success
    outcome = runner.run("train_round", ROUND, ["eval_report"])
    assert (outcome.success, outcome.failed_asset) == (False, "eval_report")
    assert "evaluation_completions of round-0001 has responses of ppo-" in outcome.failure
    alone = runner.run("train_round", ROUND, ["promotion"])
    assert alone.failure.startswith("The report is about ppo-round-0001-")
    assert round_rows(runner.loop, [ROUND])[0]["policy"]["checkpoint"].startswith("models/ppo-")


@pytest.fixture(scope="module")
def best(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    """A round that releases the best of two arms."""
    folder = tmp_path_factory.mktemp("best") / "loop"
    runner = copy_loop(stages.unjudged, folder, arms=["dpo"], release={"arm": "best", "prompts": 30}, dpo=DPO)
    assert runner.missing("train_round", ROUND)[:3] == ["dpo_policy", "policy_choice", "evaluation_completions"]
    outcome = run_missing(runner, "train_round", ROUND)
    assert outcome.success, outcome
    return runner


def test_the_best_is_chosen_on_prompts_that_nothing_else_is_measured_on(best: LoopRunner) -> None:
    choice = best.loop.json("policy_choice", ROUND)
    assert [arm["arm"] for arm in choice["arms"]] == ["ppo", "dpo"]
    assert choice["prompts"] == 30
    assert choice["policy_id"] == checkpoint(best.loop, TRAINED[choice["arm"]].asset, ROUND).model_id
    for arm in choice["arms"]:
        assert {(rate["against"], rate["n"]) for rate in arm["win_rates"]} == {("behaviour", 30)}
        assert arm["least"] == min(rate["value"] for rate in arm["win_rates"])
    prompts = pd.read_parquet(asset_path(best.loop, "prompts")).set_index("prompt_id")["split"]
    evaluated = pd.read_parquet(asset_path(best.loop, "evaluation_completions", ROUND))
    assert set(prompts[evaluated["prompt_id"]]) == {"test"}


def test_the_chosen_policy_is_judged_reported_and_promoted(best: LoopRunner) -> None:
    choice, report = best.loop.json("policy_choice", ROUND), report_of(best)
    assert best.loop.registry.champion().policy_id == report["policy_id"] == choice["policy_id"]
    assert report["choice"] == choice
    assert choice["reason"] in asset_path(best.loop, "eval_report", ROUND, "html").read_text().replace("&#39;", "'")
    beside = {arm["role"] for arm in report["arms"]} - {"policy"}
    assert beside == {"ppo", "dpo"} - {choice["arm"]}


def test_a_choice_that_its_policies_have_outlived_is_refused(best: LoopRunner, copy_of) -> None:
    runner = copy_of(best.loop.root, arms=["dpo"], release={"arm": "best", "prompts": 30}, dpo=DPO | {"beta": 0.2})
    choice = runner.loop.json("policy_choice", ROUND)
    assets = {"ppo": "dpo_policy", "dpo": "ppo_policy"}
    other = checkpoint(runner.loop, assets[choice["arm"]], ROUND)
    runner.loop.write_json(TRAINED[choice["arm"]].asset, ROUND, other.as_pointer())
    outcome = runner.run("train_round", ROUND, ["evaluation_completions"])
    assert f"policy_choice of {ROUND} has chosen {choice['policy_id']}" in outcome.failure
    with pytest.raises(UserError, match="make policy_choice again first"):
        round_candidate(runner.loop, ROUND)
