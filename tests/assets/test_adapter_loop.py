"""Two rounds of a loop whose models are adapters on one base, from SFT to the promotion, a backup and a plain model.

Its reward model has several heads, and what they disagree on is labelled in the second round.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from loops import ROUND, asset_path, checkpoint, open_runner, rlhf_here, run_missing, run_round, write_loop
from transformers import AutoModelForCausalLM

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.arms import BEST_OF_N_SFT, DPO
from rlhf_dagster.labeling.comparisons import candidates
from rlhf_dagster.lineage.adapter_folders import adapter_base, find_base
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import arm_policy
from rlhf_dagster.loop.comparisons import reward_gaps
from rlhf_dagster.loop.selection import chosen_by
from rlhf_dagster.training.models.policies import load_policy

SECOND = "round-0002"
HEADS, BATCH = 3, 40
LORA = {"lora": {"rank": 4, "merge": False}}
SETTINGS: dict = {
    "sft": LORA,
    "reward_model": LORA | {"heads": HEADS},
    "ppo": LORA | {"value": "separate"},
    "dpo": LORA,
    # Its adapters are those of SFT where nothing else is said.
    "best_of_n_sft": {"n": 2, "prompts": 16},
    "arms": ["dpo", "best_of_n_sft"],
    "labeling": {
        "comparisons_per_round": BATCH,
        "held_out_annotators": 0.25,
        "selection": "disagreement",
        "selection_pool": 2.0,
        "selection_random": 0.25,
    },
    "models": {"keep": 1},
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> LoopRunner:
    runner = open_runner(write_loop(tmp_path_factory.mktemp("adapters") / "loop", **SETTINGS))
    assert run_missing(runner, "prepare").success
    assert run_round(runner) == ROUND
    run_round(runner)
    return runner


def made(runner: LoopRunner) -> dict[str, Checkpoint]:
    loop = runner.loop
    found = {name: checkpoint(loop, name, SECOND) for name in ("reward_model", "ppo_policy")}
    arms = {arm.name: arm_policy(loop, arm, SECOND) for arm in (DPO, BEST_OF_N_SFT)}
    return found | arms | {"sft": checkpoint(loop, "sft_checkpoint")}


def test_every_model_is_adapters_on_the_base(runner: LoopRunner) -> None:
    base = checkpoint(runner.loop, "base_model")
    for kept in made(runner).values():
        assert adapter_base(kept.folder).name == base.model_id
        assert find_base(kept.folder) == base.folder
        assert not (kept.folder / "model.safetensors").exists()


def test_the_second_policy_goes_on_from_the_first_and_is_the_champion(runner: LoopRunner) -> None:
    policy = made(runner)["ppo_policy"]
    assert runner.loop.registry.champion().policy_id == policy.model_id


def test_best_of_n_sft_goes_on_from_the_champion_and_is_another_policy(runner: LoopRunner) -> None:
    models, first = made(runner), checkpoint(runner.loop, "ppo_policy", ROUND)
    manifest = read_manifest(models["best_of_n_sft"].folder)
    assert manifest["parents"]["start"]["model_id"] == first.model_id
    assert manifest["config"]["sft"]["lora"]["merge"] is False
    assert len({model.digest for model in [first, *models.values()]}) == 1 + len(models)
    arms = {arm["role"]: arm for arm in (runner.loop.json("eval_report", SECOND) or {})["arms"]}
    assert arms["best_of_n_sft"]["policy_id"] == models["best_of_n_sft"].model_id


def test_the_second_round_asks_about_what_the_heads_of_the_first_disagree_on(runner: LoopRunner) -> None:
    loop, model = runner.loop, checkpoint(runner.loop, "reward_model", ROUND)
    assert chosen_by(loop, ROUND) == "random, because there is no reward model yet"
    assert chosen_by(loop, SECOND) == f"disagreement of {model.model_id}"
    completions = pd.read_parquet(asset_path(loop, "completions", SECOND))
    seed = loop.config.stage_seed("comparisons", SECOND)
    gaps = reward_gaps(loop, candidates(completions, loop.config.labeling, SECOND, seed), model)
    asked = pd.read_parquet(asset_path(loop, "preference_batch", SECOND))["comparison_id"].tolist()
    assert len(asked) == BATCH < len(gaps)
    surest = sorted(gaps, key=gaps.__getitem__, reverse=True)[: len(gaps) - BATCH]
    # A quarter is drawn at random, of which some are sure.
    assert len({*asked} & {*surest}) <= BATCH / 4
    assert len({*gaps.values()}) > BATCH


def test_the_second_reward_model_has_as_many_heads_and_its_round_a_report(runner: LoopRunner) -> None:
    config = json.loads((made(runner)["reward_model"].folder / "config.json").read_text(encoding="utf-8"))
    assert len(config["score_bias"]) == HEADS
    assert (runner.loop.json("promotion", SECOND) or {})["promoted"]


def test_it_is_sound_and_comes_back_from_a_backup(runner: LoopRunner, tmp_path: Path) -> None:
    checked = rlhf_here("check", runner.loop.root)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert rlhf_here("backup", runner.loop.root, tmp_path / "backup").returncode == 0
    restored = rlhf_here("restore", tmp_path / "backup", tmp_path / "again")
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert rlhf_here("check", tmp_path / "again").returncode == 0
    there = open_runner(tmp_path / "again").loop.policy(made(runner)["ppo_policy"].model_id)
    assert find_base(there.folder).is_relative_to(tmp_path / "again")


def test_merged_it_is_a_plain_model_that_computes_the_same(runner: LoopRunner, tmp_path: Path) -> None:
    policy = made(runner)["ppo_policy"].folder
    done = rlhf_here("merge", policy, tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")(ids).logits
        own = load_policy(policy).model(ids).logits
    torch.testing.assert_close(plain, own, rtol=1e-4, atol=1e-4)
