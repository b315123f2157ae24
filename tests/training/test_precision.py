"""bfloat16 computes in less precision, and trains the same."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_language import COMPUTE, FIXED, TINY, Tables, about_training, reward_spec, sft_spec
from zoo.make import make_tiny

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.reward.scores import score_responses
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.runtime.device import precision
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import PpoSpec, TrainingResult

BF16 = COMPUTE.changed(precision="bf16")


@pytest.fixture(scope="module")
def rewards(
    sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainingResult, TrainingResult]:
    """In float32 and in bfloat16."""
    spec, folder = reward_spec(sft, tables, Path()), tmp_path_factory.mktemp("rewards")
    exact = train_reward_model(replace(spec, output=folder / "fp32"))
    return exact, train_reward_model(replace(spec, output=folder / "bf16", compute=BF16))


def assert_float32_but_different(result: TrainingResult, exact: TrainingResult) -> None:
    weights, expected = (load_file(each.folder / "model.safetensors") for each in (result, exact))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert any(not torch.equal(weights[name], expected[name]) for name in weights)


def test_pretraining_and_sft(base: Path, sft_result: TrainingResult, tables: Tables, tmp_path: Path) -> None:
    rough = train_sft(replace(sft_spec(base, tables, tmp_path / "sft"), compute=BF16))
    assert_float32_but_different(rough, sft_result)
    assert rough.curves["loss"] == pytest.approx(sft_result.curves["loss"], abs=0.02)
    texts = ["red dog . good cat .", "blue dog ."] * 20
    exact, rough = (make_tiny_model(texts, TINY, tmp_path / c.precision, c) for c in (COMPUTE, BF16))
    assert_float32_but_different(rough, exact)
    assert rough.metrics["loss"] == pytest.approx(exact.metrics["loss"], abs=0.02)


def test_the_reward_model(rewards: tuple[TrainingResult, TrainingResult]) -> None:
    exact, rough = rewards
    assert_float32_but_different(rough, exact)
    assert rough.metrics["accuracy_validation"] == pytest.approx(exact.metrics["accuracy_validation"], abs=0.1)
    assert rough.metrics["loss_train"] == pytest.approx(exact.metrics["loss_train"], abs=0.05)
    assert rough.metrics["reference_std"] == pytest.approx(1, abs=0.02)


def test_ppo(sft: Path, rewards: tuple[TrainingResult, TrainingResult], tables: Tables, tmp_path: Path) -> None:
    settings = PpoSettings(updates=25, batch_size=32, learning_rate=5e-3, kl_coef=0.05)
    reward = rewards[0].folder
    results = [
        train_ppo(
            PpoSpec(sft, sft, reward, tables.prompts, None, tmp_path / c.precision, settings, FIXED, 1, compute=c)
        )
        for c in (COMPUTE, BF16)
    ]
    assert_float32_but_different(results[1], results[0])
    first, last = (results[1].curves["reward"][index] for index in (0, -1))
    assert last > first + 1
    assert results[1].metrics["reward"] == pytest.approx(results[0].metrics["reward"], abs=0.5)
    assert results[1].curves["ratio_first"] == pytest.approx([1.0] * 25, abs=0.05)
    assert about_training(results[1].warnings) == []


def test_sampling_and_scoring(sft: Path, rewards: tuple[TrainingResult, TrainingResult]) -> None:
    prompts = ["red dog .", "good"]
    drawn = sample(sft, prompts, FIXED, 3, compute=COMPUTE)
    exact, rough = (
        response_log_probs(sft, prompts, [one.token_ids for one in drawn], FIXED, c) for c in (COMPUTE, BF16)
    )
    assert rough != exact
    assert list(chain(*rough)) == pytest.approx(list(chain(*exact)), abs=0.1)
    scores = [score_responses(rewards[0].folder, prompts, ["good dog", "bad"], FIXED, c) for c in (COMPUTE, BF16)]
    assert scores[0].tolist() != scores[1].tolist()
    assert scores[1].tolist() == pytest.approx(scores[0].tolist(), abs=0.1)


def test_the_weights_that_change_are_read_anew() -> None:
    """Autocast's cache would go on with the weights of before the step."""
    layer = torch.nn.Linear(2, 1, bias=False)
    with precision(BF16):
        before = layer(torch.ones(1, 2))
        with torch.no_grad():
            layer.weight.add_(1)
        assert (layer(torch.ones(1, 2)) - before).item() == pytest.approx(2, abs=0.05)
    assert before.dtype == torch.bfloat16


def test_an_architecture_that_does_not_compute_in_bfloat16_is_refused(tmp_path: Path) -> None:
    made = make_tiny("dbrx", tmp_path / "dbrx")
    load_policy(made, COMPUTE)
    with pytest.raises(UserError, match=r"DbrxForCausalLM does not run with `compute\.precision: bf16`"):
        load_policy(made, BF16)
