"""A round that trains a DPO policy and samples best-of-n beside PPO."""

import json
from collections.abc import Callable

import dagster as dg
import pandas as pd
import pytest
from loops import ROUND, Stages, asset_path, checkpoint, copy_loop, open_runner, run_missing, write_loop

from rlhf_dagster.automation.headlines import HEADLINES
from rlhf_dagster.automation.jobs import JUDGE, RELEASE
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.config.arms import BEST_OF_N_SFT, DPO, GRPO, RLOO, Arm
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop.candidate import arm_policy

N = 4


@pytest.fixture(scope="module")
def runner(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    folder = tmp_path_factory.mktemp("arms") / "loop"
    settings = {"arms": ["dpo"], "dpo": {"batch_size": 16}, "evaluation": {"best_of_n": N}}
    runner = copy_loop(stages.unjudged, folder, **settings)
    made = runner.missing("train_round", ROUND)
    assert made[:3] == ["dpo_policy", "evaluation_completions", "eval_report"]
    outcome = run_missing(runner, "train_round", ROUND)
    assert outcome.success, outcome
    return runner


def test_the_terminal_shows_its_numbers(runner: LoopRunner) -> None:
    records = dg.AssetRecordsFilter(dg.AssetKey("dpo_policy"), asset_partitions=[ROUND])
    made = runner.instance.fetch_materializations(records, limit=1).records[0].asset_materialization
    assert made is not None
    assert made.metadata.keys() >= set(HEADLINES["dpo_policy"])


def report_of(runner: LoopRunner) -> dict:
    return json.loads(asset_path(runner.loop, "eval_report", ROUND, "json").read_text())


def test_the_dpo_policy_is_kept_and_registered_and_not_promoted(runner: LoopRunner) -> None:
    policy, sft = arm_policy(runner.loop, DPO, ROUND), checkpoint(runner.loop, "sft_checkpoint")
    assert runner.loop.registry.get(policy.model_id).parents == (sft.model_id,)
    assert runner.loop.registry.champion().policy_id == checkpoint(runner.loop, "ppo_policy", ROUND).model_id
    manifest = read_manifest(policy.folder)
    assert manifest["metrics"]["loss_train"] > 0
    assert manifest["parents"]["sft_checkpoint"]["model_id"] == sft.model_id


def test_each_arm_answers_every_prompt_once(runner: LoopRunner) -> None:
    frame = pd.read_parquet(asset_path(runner.loop, "evaluation_completions", ROUND))
    prompts = {role: rows["prompt_id"].tolist() for role, rows in frame.groupby("role")}
    assert prompts.keys() == {"policy", "sft", "behaviour", "dpo", "best_of_n"}
    assert all(sorted(asked) == sorted(prompts["policy"]) for asked in prompts.values())


def test_the_report_has_them_beside_ppo(runner: LoopRunner) -> None:
    arms = {arm["role"]: arm for arm in report_of(runner)["arms"]}
    assert [arm["name"] for arm in arms.values()] == ["PPO", "DPO", f"Best of {N}"]
    for arm in arms.values():
        assert [rate["judge"] for rate in arm["win_rates"]] == ["reward model", "gold judge"]
        assert {rate["n"] for rate in arm["win_rates"]} == {24}
    assert arms["best_of_n"]["kl_bound"] == pytest.approx(best_of_n_kl(N))
    assert arms["best_of_n"]["kl"]["value"] is None
    assert arms["dpo"]["kl"]["value"] is not None
    assert arms["best_of_n"]["win_rates"][0]["value"] > 0.5  # by the reward model, which has chosen
    page = asset_path(runner.loop, "eval_report", ROUND, "html").read_text()
    assert "Other ways to learn from the same labels" in page
    assert arms["dpo"]["policy_id"] in page


def test_people_judge_the_round_s_policy_alone(runner: LoopRunner) -> None:
    batch = pd.read_parquet(asset_path(runner.loop, "evaluation_batch", ROUND))
    asked = {policy for policies in batch["policy_ids"] for policy in policies}
    policy, sft = checkpoint(runner.loop, "ppo_policy", ROUND), checkpoint(runner.loop, "sft_checkpoint")
    assert asked == {policy.model_id, sft.model_id}


def test_logs_and_curves_are_on_the_asset_s_page(runner: LoopRunner) -> None:
    event = runner.instance.get_latest_materialization_event(dg.AssetKey("dpo_policy"))
    metadata = event.asset_materialization.metadata
    folder = runner.loop.root / "logs" / f"dpo-{ROUND}"
    assert metadata["logs"].value == str(folder)
    assert "training_curves" in metadata
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "reward_margin", "accuracy"} <= steps[0].keys()
    assert list((folder / "tensorboard").iterdir())


def test_a_loop_without_arms_has_none(finished: LoopRunner) -> None:
    assert report_of(finished)["arms"] == []
    assert "Other ways to learn" not in asset_path(finished.loop, "eval_report", ROUND, "html").read_text()
    with pytest.raises(UserError, match=f"{ROUND} has no dpo_policy yet"):
        arm_policy(finished.loop, DPO, ROUND)


def test_asking_for_an_arm_later_makes_what_is_missing(stages: Stages, copy_of: Callable[..., LoopRunner]) -> None:
    runner = copy_of(stages.finished, arms=["dpo"])
    assert runner.missing("train_round", ROUND) == ["dpo_policy", *JUDGE, *RELEASE]


def test_what_was_made_without_an_arm_is_made_again_where_its_policy_is_there(stages: Stages, copy_of) -> None:
    """Killed after the policy of a new arm; and an arm that the config names, leaves out, and names again."""
    asking: dict = {"arms": ["dpo"], "dpo": {"batch_size": 16}}
    runner = copy_of(stages.finished, **asking)
    assert run_missing(runner, "train_round", ROUND, until="dpo_policy").success
    assert runner.missing("train_round", ROUND) == [*JUDGE, *RELEASE]
    without = open_runner(write_loop(runner.loop.root))
    assert without.missing("train_round", ROUND) == []
    assert without.run("train_round", ROUND, ["evaluation_completions"]).success
    again = open_runner(write_loop(runner.loop.root, **asking))
    assert again.missing("train_round", ROUND) == [*JUDGE, *RELEASE]


@pytest.fixture(scope="module")
def variants(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    """A round with the arms that borrow PPO's training or SFT's."""
    folder = tmp_path_factory.mktemp("variants") / "loop"
    settings = {"arms": ["rloo", "grpo", "best_of_n_sft"], "best_of_n_sft": {"n": 2, "prompts": 32}}
    runner = copy_loop(stages.unjudged, folder, **settings)
    assert runner.missing("train_round", ROUND)[:3] == ["rloo_policy", "grpo_policy", "best_of_n_sft_policy"]
    outcome = run_missing(runner, "train_round", ROUND)
    assert outcome.success, outcome
    return runner


@pytest.mark.parametrize("arm", [RLOO, GRPO, BEST_OF_N_SFT])
def test_a_variant_is_kept_with_its_own_settings_and_parents(variants: LoopRunner, arm: Arm) -> None:
    policy = arm_policy(variants.loop, arm, ROUND)
    manifest, config = read_manifest(policy.folder), variants.loop.config
    assert policy.model_id.startswith(f"{arm.kind}-{ROUND}-")
    assert manifest["config"][arm.name] == getattr(config, arm.name).recorded()
    assert manifest["parents"].keys() == {"sft_checkpoint", "start", "reward_model"}
    assert manifest["seed"] == config.stage_seed(arm.name, ROUND)
    assert manifest["dataset"] == read_manifest(checkpoint(variants.loop, "ppo_policy", ROUND).folder)["dataset"]
    records = dg.AssetRecordsFilter(dg.AssetKey(arm.asset), asset_partitions=[ROUND])
    made = variants.instance.fetch_materializations(records, limit=1).records[0].asset_materialization
    assert made.metadata.keys() >= set(HEADLINES[arm.asset])


def test_variants_learn_something_else_than_ppo_and_are_reported(variants: LoopRunner) -> None:
    arms = {arm["role"]: arm for arm in report_of(variants)["arms"]}
    assert [arm["name"] for arm in arms.values()] == ["PPO", "RLOO", "GRPO", "Best-of-n SFT"]
    assert len({arm["policy_id"].rpartition("-")[2] for arm in arms.values()}) == len(arms)
    assert not (arm_policy(variants.loop, RLOO, ROUND).folder / "value_head.safetensors").exists()


def test_best_of_n_sft_is_trained_on_the_best(variants: LoopRunner) -> None:
    metrics = read_manifest(arm_policy(variants.loop, BEST_OF_N_SFT, ROUND).folder)["metrics"]
    assert metrics["demonstrations"] == 32
    assert metrics["reward_of_best"] > metrics["reward_of_samples"]
    assert "unended_responses" not in metrics
    assert not variants.loop.models.work_folder("best_of_n_sft_samples", ROUND).exists()
