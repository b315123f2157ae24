"""Two rounds of a loop whose models are adapters on one base, from SFT to the promotion, a backup and a plain model."""

from pathlib import Path

import pytest
import torch
from loops import ROUND, checkpoint, open_runner, rlhf_here, run_missing, run_round, write_loop
from transformers import AutoModelForCausalLM

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.arms import DPO
from rlhf_dagster.lineage.adapter_folders import adapter_base, find_base
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import arm_policy
from rlhf_dagster.training.models.policies import load_policy

LORA = {"lora": {"rank": 4, "merge": False}}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    stages = dict.fromkeys(("sft", "reward_model", "dpo"), LORA)
    ppo = LORA | {"value": "separate"}
    runner = open_runner(
        write_loop(tmp_path_factory.mktemp("adapters") / "loop", **stages, ppo=ppo, arms=["dpo"], models={"keep": 1})
    )
    assert run_missing(runner, "prepare").success
    assert run_round(runner) == ROUND
    run_round(runner)
    return runner


def made(runner: LoopRunner) -> dict[str, Checkpoint]:
    loop, second = runner.loop, "round-0002"
    found = {name: checkpoint(loop, name, second) for name in ("reward_model", "ppo_policy")}
    return found | {"sft": checkpoint(loop, "sft_checkpoint"), "dpo": arm_policy(loop, DPO, second)}


def test_every_model_is_adapters_on_the_base(runner: LoopRunner) -> None:
    base = checkpoint(runner.loop, "base_model")
    for kept in made(runner).values():
        assert adapter_base(kept.folder).name == base.model_id
        assert find_base(kept.folder) == base.folder
        assert not (kept.folder / "model.safetensors").exists()


def test_the_second_policy_goes_on_from_the_first_and_is_the_champion(runner: LoopRunner) -> None:
    policy = made(runner)["ppo_policy"]
    assert runner.loop.registry.champion().policy_id == policy.model_id


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
