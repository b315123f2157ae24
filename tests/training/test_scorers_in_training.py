"""Reward models, value heads and value models of foreign architectures through whole trainings of the toy language."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ppo_modes import LORA
from safetensors.torch import load_file
from toy_language import COMPUTE, FIXED, Tables, reward_spec
from transformers import AutoTokenizer
from zoo.make import tiny_model

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.policy import VALUE_HEAD_FILE, VALUE_MODEL_FOLDER, PolicyWithValue
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.reward.scores import load_reward_model, score_with_spread
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.scorers.trunk import head_width
from rlhf_dagster.training.specs import PpoSpec, RewardModelSpec

NAMES = ("granite", "bart", "opt-350m")
ENSEMBLE = {"heads": 2, "ties": "davidson", "epochs": 1, "normalisation_samples": 64}
PROMPTS, RESPONSES = ["red dog .", "good"], ["good good cat", "bad"]


@pytest.fixture(scope="module")
def speaker(sft: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of the zoo that speaks the toy language, in the place of an SFT checkpoint."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            model, tokenizer = tiny_model(name), AutoTokenizer.from_pretrained(sft)
            model.config.pad_token_id, model.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
            model.save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return make


def ensemble_spec(sft: Path, tables: Tables, output: Path, **settings: object) -> RewardModelSpec:
    spec = reward_spec(sft, tables, output)
    return replace(spec, settings=spec.settings.changed(**ENSEMBLE | settings))


def ppo_spec(sft: Path, reward: Path, tables: Tables, output: Path, **settings: object) -> PpoSpec:
    short = PpoSettings(updates=2, batch_size=8, minibatches=2, learning_rate=3e-3, **settings)
    return PpoSpec(sft, sft, reward, tables.prompts, None, output, short, FIXED, seed=1, compute=COMPUTE)


@pytest.fixture(scope="module")
def reward(
    speaker: Callable[[str], Path], tables: Tables, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            output = tmp_path_factory.mktemp("rewards") / name
            made[name] = train_reward_model(ensemble_spec(speaker(name), tables, output)).folder
        return made[name]

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_model_is_trained_and_opens_with_its_scores(name: str, reward: Callable[[str], Path]) -> None:
    folder = reward(name)
    scores = score_with_spread(folder, PROMPTS, RESPONSES, FIXED, COMPUTE)
    again = score_with_spread(load_reward_model(folder), PROMPTS[::-1], RESPONSES[::-1], FIXED, COMPUTE)
    np.testing.assert_allclose(scores.mean, again.mean[::-1], atol=1e-4)
    assert scores.spread.min() > 0


@pytest.mark.parametrize("lora", [LORA, pytest.param(None, marks=pytest.mark.long)])
def test_an_interrupted_reward_model_is_the_uninterrupted_one(
    lora: object, speaker: Callable[[str], Path], tables: Tables, tmp_path: Path
) -> None:
    spec = ensemble_spec(speaker("granite"), tables, tmp_path / "whole", lora=lora)
    whole = train_reward_model(spec)
    cut, reasons = replace(spec, output=tmp_path / "cut"), iter(["", "", "enough"])
    with pytest.raises(TrainingStopped):
        train_reward_model(cut, checkpointing=Checkpointing(tmp_path / "states", 1, stop=lambda: next(reasons, "")))
    resumed = train_reward_model(cut, checkpointing=Checkpointing(tmp_path / "states", 1))
    assert resumed.metrics == whole.metrics
    assert weights(resumed.folder) == weights(whole.folder)


def weights(folder: Path) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        *((name, None) for name in NAMES),
        ("granite", LORA),
        *(pytest.param(name, LORA, marks=pytest.mark.long) for name in NAMES[1:]),
    ],
)
def test_ppo_trains_a_value_model_and_goes_on_from_it(
    name: str,
    lora: object,
    speaker: Callable[[str], Path],
    reward: Callable[[str], Path],
    tables: Tables,
    tmp_path: Path,
) -> None:
    spec = ppo_spec(speaker(name), reward(name), tables, tmp_path / "first", value="separate", lora=lora)
    first = train_ppo(spec)
    assert first.curves["ratio_first"] == pytest.approx([1.0] * 2, abs=1e-3)
    saved = load_file(first.folder / VALUE_MODEL_FOLDER / "model.safetensors")
    assert not torch.equal(saved["score.weight"], load_file(reward(name) / "model.safetensors")["score.weight"])
    following = prepare_ppo(replace(spec, start=first.folder, output=tmp_path / "second"))
    opened = dict(following.policy.named_parameters())
    name_of = "value_model.score.modules_to_save.default.weight" if lora else "value_model.score.weight"
    assert torch.equal(opened[name_of], saved["score.weight"])


@pytest.mark.parametrize("name", [*NAMES, "electra"])
def test_a_value_head_reads_what_the_output_head_reads(
    name: str, speaker: Callable[[str], Path], reward: Callable[[str], Path], tables: Tables, tmp_path: Path
) -> None:
    spec = ppo_spec(speaker(name), reward(name), tables, tmp_path / "first")
    result = train_ppo(spec)
    assert result.curves["ratio_first"] == pytest.approx([1.0] * 2, abs=1e-3)
    head = load_file(result.folder / VALUE_HEAD_FILE)
    assert head["weight"].abs().max() > 0
    following = prepare_ppo(replace(spec, start=result.folder, output=tmp_path / "second")).policy
    assert isinstance(following, PolicyWithValue)
    assert torch.equal(following.value_head.weight, head["weight"])
    assert head["weight"].shape[1] == load_policy(speaker(name)).model.get_output_embeddings().in_features


def test_projected_states_are_narrower_than_the_hidden_ones(speaker: Callable[[str], Path]) -> None:
    model = load_policy(speaker("opt-350m")).model
    assert (head_width(model), model.config.hidden_size) == (16, 32)
    model.get_output_embeddings = lambda: None
    with pytest.raises(UserError, match=r"has no linear output head .* set `ppo.value: separate`"):
        PolicyWithValue(model)
