"""Rewards: ensembles, functions on text, and reward models with a tokenizer of their own."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ppo_modes import good, spec_of
from toy_language import COMPUTE, FIXED, TINY, VARIABLE, Tables, reward_spec, sentence, sft_spec
from transformers import GPT2ForSequenceClassification

from rlhf_dagster.config.training import PpoSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import Chat
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.ppo.reward import TextScore, combined, ensemble_scores
from rlhf_dagster.training.ppo.rollout import Episodes, Rollout, collect
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.reward.scores import load_reward_model, score_responses, score_tokens
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.rewards.python_function import load_reward_function
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.tokens import PaddedBatch, encode_prompts, pad

Make = Callable[[str], PpoSpec]
PROMPTS = ["red dog .", "good", "blue cat bad"]


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> Make:
    return lambda mode: spec_of(mode, deep_sft, deep_reward, tables, tmp_path / "ppo")


@pytest.fixture(scope="module")
def byte_pairs(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of byte pairs, where the policy has words."""
    folder, rng = tmp_path_factory.mktemp("byte_pairs"), random.Random(3)
    texts = [sentence(rng, 20) for _ in range(120)]
    settings = TINY.changed(tokenizer="bpe", vocabulary=280, context=64)
    base = make_tiny_model(texts, settings, folder / "base", COMPUTE).folder
    sft = train_sft(sft_spec(base, tables, folder / "sft")).folder
    return train_reward_model(reward_spec(sft, tables, folder / "reward")).folder


def answers(policy: Policy, episodes: Episodes, sampling: SamplingSettings, settings: PpoSettings) -> Rollout:
    prompts = pad(encode_prompts(policy.tokenizer, PROMPTS, sampling.prompt_tokens), episodes.decoding.pad_id, "left")
    uniforms = draw_uniforms(len(PROMPTS), sampling.response_tokens, torch.Generator().manual_seed(0))
    return collect(PpoPolicy(policy.model), episodes, prompts, uniforms=uniforms, settings=settings, texts=PROMPTS)


def texts_of(policy: Policy, rollout: Rollout) -> list[str]:
    rows = zip(rollout.tokens, rollout.mask.bool(), strict=True)
    return [
        policy.tokenizer.decode(row[mask], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row, mask in rows
    ]


MESSAGES = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "red"}]


def with_messages(prompts: list[str], responses: list[str], messages: list[list[dict[str, str]] | None]) -> list[float]:
    assert prompts == ["System: Be good.\n\nUser: red", "red"]
    return [float(found == MESSAGES) for found in messages]


def test_a_reward_function_reads_chats_as_texts_and_gets_their_messages_where_it_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ppo_modes.asks", with_messages, raising=False)
    assert load_reward_function("ppo_modes:asks")([Chat.of(MESSAGES), "red"], ["a", "b"]).tolist() == [1, 0]


def test_an_ensemble_counts_as_its_mean_minus_its_spread() -> None:
    reward = combined(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), 0.5)
    assert reward.spread is not None
    assert reward.score.tolist() == [1.5, 2.0]
    assert reward.spread.tolist() == [1.0, 0.0]
    single = combined(torch.tensor([1.0, 2.0]), 0.5)
    assert single.score.tolist() == [1.0, 2.0]
    assert single.spread is None


def ensemble(reward: Path, folder: Path) -> Path:
    """The reward model with a second head, twice the first and 3 higher."""
    model = load_reward_model(reward, COMPUTE)
    weight, bias = model.model.score.weight.detach(), model.model.config.score_bias
    model.model.config.num_labels = 2
    two = GPT2ForSequenceClassification(model.model.config)
    state = {name: value for name, value in model.model.state_dict().items() if name != "score.weight"}
    two.load_state_dict(state | {"score.weight": torch.cat([weight, 2 * weight])})
    two.config.score_bias = [bias, 2 * bias + 3]
    two.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def test_a_reward_model_with_several_heads_is_an_ensemble(spec: Make, deep_reward: Path, tmp_path: Path) -> None:
    folder = ensemble(deep_reward, tmp_path / "ensemble")
    ids = torch.tensor([[3, 4, 5, 6]])
    batch = PaddedBatch(ids, torch.ones_like(ids))
    one = score_tokens(load_reward_model(deep_reward, COMPUTE).model, batch).item()
    scores = ensemble_scores(load_reward_model(folder, COMPUTE).model, batch)
    assert scores[0].tolist() == pytest.approx([one, 2 * one + 3], abs=1e-5)
    with_ensemble = replace(spec("validated"), reward_model=folder)
    result = train_ppo(with_ensemble)
    assert result.curves["reward_spread"][0] > 1
    assert len(result.curves["validation_spread"]) == 3
    limited = replace(with_ensemble, settings=with_ensemble.settings.changed(spread_limit=0.5))
    stopped = train_ppo(limited)
    assert len(stopped.curves["reward"]) == 2
    assert any("more than ppo.spread_limit 0.5" in warning for warning in stopped.warnings)
    values = replace(with_ensemble, settings=with_ensemble.settings.changed(value="separate"))
    assert train_ppo(values).curves["ratio_first"] == pytest.approx([1.0] * 4, abs=1e-4)


def test_the_spread_lowers_the_reward(spec: Make, deep_reward: Path, tmp_path: Path) -> None:
    folder = ensemble(deep_reward, tmp_path / "ensemble")
    trusting = replace(spec("separate"), reward_model=folder)
    careful = replace(trusting, settings=trusting.settings.changed(spread_coef=2.0))
    first = [train_ppo(each).curves for each in (trusting, careful)]
    spread = first[0]["reward_spread"][0]
    assert first[1]["reward"][0] == pytest.approx(first[0]["reward"][0] - 2 * spread, abs=1e-4)


def test_a_function_gets_prompts_and_responses_as_texts(deep_sft: Path, spec: Make) -> None:
    policy, seen = load_policy(deep_sft, COMPUTE), []

    def reward(prompts: list[str], responses: list[str]) -> torch.Tensor:
        seen.append((prompts, responses))
        return torch.tensor(good(prompts, responses))

    episodes = replace(prepare_ppo(spec("function")).episodes, score=TextScore(policy.tokenizer, reward))
    rollout = answers(policy, episodes, VARIABLE, PpoSettings())
    assert seen == [(PROMPTS, texts_of(policy, rollout))]
    assert rollout.scores.tolist() == good(*seen[0])


def test_it_learns_from_a_function(spec: Make) -> None:
    asked = spec("function")
    settings = asked.settings.changed(updates=20, learning_rate=1e-2, batch_size=32, kl_coef=0.02, kl_target=None)
    curves = train_ppo(replace(asked, settings=settings)).curves
    assert curves["reward"][-1] > curves["reward"][0] + 0.5
    assert curves["validation_reward"][-1] > curves["validation_reward"][0] + 0.5


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("ppo_modes:raises", "raised ZeroDivisionError: division by zero"),
        ("ppo_modes:too_few", "gave 15 numbers for 16 responses"),
        ("ppo_modes:not_finite", r"gave nan for the response '.+'; it must give finite numbers"),
        ("ppo_modes:no_numbers", "raised ValueError: could not convert string to float"),
        ("ppo_modes:nothing", "raised TypeError: 'NoneType' object is not iterable"),
        ("ppo_modes:absent", "cannot be imported"),
        ("absent_module:good", "cannot be imported"),
        ("ppo_modes", "cannot be imported"),
        ("absent.py:good", "cannot be imported"),
        ("ppo_modes:NUMBER", "is not a function"),
    ],
)
def test_a_bad_function_is_one_sentence(function: str, problem: str, spec: Make) -> None:
    asked = spec("function")
    without_validation = replace(asked, settings=asked.settings.changed(validate_every=None))
    with pytest.raises(UserError, match=rf"^reward_function '{function}' {problem}") as error:
        train_ppo(replace(without_validation, reward_function=function))
    assert "\n" not in str(error.value)


def test_a_function_is_checked_at_every_call() -> None:
    reward = load_reward_function("ppo_modes:good")
    assert reward(["a"], ["good good bad"]).tolist() == [1.0]


def test_a_reward_model_with_another_tokenizer_reads_the_text(deep_sft: Path, spec: Make, byte_pairs: Path) -> None:
    policy, asked = load_policy(deep_sft, COMPUTE), replace(spec("rloo"), reward_model=byte_pairs)
    setup = prepare_ppo(asked)
    assert isinstance(setup.episodes.score, TextScore)
    rollout = answers(policy, setup.episodes, FIXED, PpoSettings())
    expected = score_responses(byte_pairs, PROMPTS, texts_of(policy, rollout), FIXED, COMPUTE)
    assert rollout.scores.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert train_ppo(asked).curves["kl"][0] == pytest.approx(0, abs=1e-4)
    with pytest.raises(UserError, match="no value model can begin as it"):
        prepare_ppo(replace(spec("separate"), reward_model=byte_pairs))


def test_rewards_that_are_missing_or_of_no_use_are_user_errors(spec: Make) -> None:
    asked = spec("lora")
    cases = {
        "nothing rewards the policy": replace(asked, reward_model=None),
        "only one can reward": replace(asked, reward_function="ppo_modes:good"),
        r"ppo\.spread_coef needs an ensemble": replace(asked, settings=asked.settings.changed(spread_coef=1.0)),
        "begins as a reward model": replace(spec("separate"), reward_model=None, reward_function="ppo_modes:good"),
    }
    for problem, wrong in cases.items():
        with pytest.raises(UserError, match=problem):
            prepare_ppo(wrong)
