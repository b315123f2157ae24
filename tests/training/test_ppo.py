import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from toy_language import COMPUTE, FIXED, VARIABLE, Tables, about_training, prompt_row, reward_spec, write
from transformers import AutoModelForCausalLM

from rlhf_dagster.config.training import PpoSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.schemas import PROMPTS
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.ppo.policy import KL_CONTROLLER_FILE, VALUE_HEAD_FILE, PolicyWithValue, load_value_head
from rlhf_dagster.training.ppo.reward import Score
from rlhf_dagster.training.ppo.rollout import Episodes, Rollout, collect
from rlhf_dagster.training.ppo.state import PromptOrder
from rlhf_dagster.training.ppo.train import run_ppo, train_ppo
from rlhf_dagster.training.reward.scores import load_reward_model, score_responses, score_tokens
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sampling.native import draw_uniforms
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import PpoSpec, TrainingResult
from rlhf_dagster.training.texts.tokens import PaddedBatch, encode_prompts, pad

SHORT = PpoSettings(updates=3, batch_size=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def reward(sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_reward_model(reward_spec(sft, tables, tmp_path_factory.mktemp("models") / "reward")).folder


def ppo_spec(sft: Path, reward: Path, tables: Tables, output: Path, settings: PpoSettings = SHORT) -> PpoSpec:
    return PpoSpec(sft, sft, reward, tables.prompts, tables.text, output, settings, FIXED, seed=1, compute=COMPUTE)


@pytest.fixture(scope="module")
def result(sft: Path, reward: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_ppo(ppo_spec(sft, reward, tables, tmp_path_factory.mktemp("models") / "ppo"))


def count(word_id: int) -> Score:
    """A reward that counts one token in the last place."""
    return lambda batch: (batch.input_ids[:, -1] == word_id).float()


def toy_episodes(policy: Policy, sft: Path, sampling: SamplingSettings, score: Score) -> Episodes:
    prompts = encode_prompts(policy.tokenizer, ["red dog .", "good", "blue cat bad"], sampling.prompt_tokens)
    reference = load_policy(sft, COMPUTE).model.requires_grad_(False)
    return Episodes(prompts, reference, score, decoding_of(policy.tokenizer, sampling))


def test_the_first_update_has_ratio_1_and_kl_0(result: TrainingResult) -> None:
    assert result.curves["kl"][0] == pytest.approx(0, abs=1e-4)
    assert result.curves["clip_fraction"][0] < 0.5
    for ratio in result.curves["ratio_first"]:
        assert ratio == pytest.approx(1, abs=1e-4)
    assert result.curves["kl"][-1] > 0
    assert about_training(result.warnings) == []


@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
def test_ratio_is_1_at_any_temperature_and_minibatch_count(
    policy: Policy, sft: Path, sampling: SamplingSettings
) -> None:
    sampling = sampling.changed(temperature=0.6)
    episodes = toy_episodes(policy, sft, sampling, count(4))
    curves = run_ppo(PolicyWithValue(policy.model), episodes, SHORT.changed(minibatches=3), seed=0)
    assert curves["ratio_first"] == pytest.approx([1.0] * 3, abs=1e-4)


def test_every_curve_has_a_number_for_each_update(result: TrainingResult) -> None:
    expected = {"reward", "kl", "kl_coef", "entropy", "ratio_first", "clip_fraction", "approx_kl", "value_loss"}
    expected |= {"explained_variance", "response_length", "distinct_responses", "policy_loss", "learning_rate"}
    expected |= {"log_ratio_first"}
    assert set(result.curves) == expected
    assert {len(curve) for curve in result.curves.values()} == {3}
    assert result.curves["learning_rate"] == pytest.approx([3e-3, 2e-3, 1e-3])


def test_the_coefficient_moves_after_the_update_that_it_judged(result: TrainingResult) -> None:
    coefs, kl = result.curves["kl_coef"], result.curves["kl"]
    for update in (0, 1):
        error = min(max(kl[update] / SHORT.kl_target - 1, -0.2), 0.2)  # type: ignore[operator]
        assert coefs[update + 1] == pytest.approx(coefs[update] * (1 + error * 16 / SHORT.kl_horizon))
    assert coefs[0] == SHORT.kl_coef


def test_the_value_head_begins_at_zero_and_is_saved_beside_the_checkpoint(result: TrainingResult, sft: Path) -> None:
    opened = load_policy(sft, COMPUTE)
    policy, decoding = PolicyWithValue(opened.model), decoding_of(opened.tokenizer, FIXED)
    ids = torch.tensor([[3, 4, 5, 6]])
    batch, tokens, mask = PaddedBatch(ids, torch.ones_like(ids)), ids[:, -2:], torch.ones(1, 2)
    assert (policy(batch, tokens, mask, decoding)[1] == 0).all()
    load_value_head(policy, result.folder)
    assert (policy(batch, tokens, mask, decoding)[1] != 0).any()


def test_a_start_that_ppo_made_brings_its_value_head_and_its_kl_coefficient(
    result: TrainingResult, sft: Path, reward: Path, tables: Tables, tmp_path: Path
) -> None:
    still = SHORT.changed(updates=1, learning_rate=1e-12)
    spec = replace(ppo_spec(sft, reward, tables, tmp_path / "on", still), start=result.folder)
    went_on = train_ppo(spec)
    coef, kl = result.curves["kl_coef"][-1], result.curves["kl"][-1]
    error = min(max(kl / SHORT.kl_target - 1, -0.2), 0.2)  # type: ignore[operator]
    assert went_on.curves["kl_coef"] == [pytest.approx(coef * (1 + error * 16 / SHORT.kl_horizon))]
    assert went_on.curves["kl_coef"][0] != SHORT.kl_coef
    before, after = (load_file(folder / VALUE_HEAD_FILE) for folder in (result.folder, went_on.folder))
    assert before["weight"].abs().max() > 1e-3
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    fixed = replace(spec, output=tmp_path / "fixed", settings=still.changed(kl_target=None))
    assert train_ppo(fixed).curves["kl_coef"] == [SHORT.kl_coef]


@pytest.mark.parametrize(
    ("name", "content"), [(KL_CONTROLLER_FILE, "{"), (KL_CONTROLLER_FILE, '{"beta": 1}'), (VALUE_HEAD_FILE, "half")]
)
def test_a_damaged_start_is_a_user_error(
    result: TrainingResult, sft: Path, reward: Path, tables: Tables, tmp_path: Path, name: str, content: str
) -> None:
    assert json.loads((result.folder / KL_CONTROLLER_FILE).read_text()).keys() == {"coef"}
    damaged = shutil.copytree(result.folder, tmp_path / "damaged")
    (damaged / name).write_text(content)
    with pytest.raises(UserError, match="PPO cannot go on"):
        train_ppo(replace(ppo_spec(sft, reward, tables, tmp_path / "ppo"), start=damaged))


def test_plain_transformers_opens_the_policy(result: TrainingResult, sft: Path) -> None:
    trained, start = (AutoModelForCausalLM.from_pretrained(folder) for folder in (result.folder, sft))
    changed = [not torch.equal(a, b) for a, b in zip(trained.parameters(), start.parameters(), strict=True)]
    assert all(changed)
    assert trained.generation_config.max_new_tokens == FIXED.response_tokens


def test_the_same_seed_makes_the_same_weights(
    result: TrainingResult, sft: Path, reward: Path, tables: Tables, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    again = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "again"))
    assert folder_digest(again.folder) == folder_digest(result.folder)
    assert again.curves == result.curves
    other = train_ppo(replace(ppo_spec(sft, reward, tables, tmp_path / "other"), seed=2))
    assert folder_digest(other.folder) != folder_digest(result.folder)


def test_it_raises_the_reward(sft: Path, reward: Path, tables: Tables, tmp_path: Path) -> None:
    settings = PpoSettings(updates=25, batch_size=32, learning_rate=5e-3, kl_coef=0.05)
    output = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ppo", settings)).folder
    prompts = pq.read_table(tables.prompts).to_pandas()["text"].tolist()
    means = []
    for folder in (sft, output):
        texts = [drawn.text for drawn in sample(folder, prompts, FIXED, 4, 2, compute=COMPUTE)]
        repeated = [prompt for prompt in prompts for _ in range(2)]
        means.append(score_responses(reward, repeated, texts, FIXED, COMPUTE).mean())
    assert means[1] > means[0] + 1


def one_rollout(policy: Policy, sft: Path, score: Score, penalty: float | None) -> Rollout:
    with torch.no_grad():
        policy.model.transformer.wte.weight[policy.tokenizer.eos_token_id] *= 3
    episodes = toy_episodes(policy, sft, VARIABLE, score)
    prompts = pad(list(episodes.prompts) * 20, policy.tokenizer.pad_token_id, "left")
    uniforms = draw_uniforms(60, VARIABLE.response_tokens, torch.Generator().manual_seed(0))
    settings = PpoSettings(missing_end_penalty=penalty)
    return collect(PolicyWithValue(policy.model), episodes, prompts, uniforms=uniforms, settings=settings)


def test_a_missing_end_replaces_the_score(policy: Policy, sft: Path) -> None:
    rollout = one_rollout(policy, sft, lambda batch: torch.full((60,), 7.0), -1.0)
    ended = (rollout.tokens == policy.tokenizer.eos_token_id).any(dim=1)
    assert 0 < ended.sum() < 60
    assert rollout.scores.tolist() == [7.0 if end else -1.0 for end in ended]


def test_the_reward_model_reads_rollouts_as_it_reads_texts(policy: Policy, sft: Path, reward: Path) -> None:
    model = load_reward_model(reward, COMPUTE)
    rollout = one_rollout(policy, sft, lambda batch: score_tokens(model.model, batch), None)
    tokenizer, mask = policy.tokenizer, rollout.mask.bool()
    texts = [
        tokenizer.decode(row[keep], skip_special_tokens=True) for row, keep in zip(rollout.tokens, mask, strict=True)
    ]
    prompts = ["red dog .", "good", "blue cat bad"] * 20
    expected = score_responses(model, prompts, texts, VARIABLE)
    assert rollout.scores.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert ((rollout.log_probs == 0) == ~mask).all()
    assert ((rollout.reference_log_probs == 0) == ~mask).all()


def test_pretraining_text_enters_the_loss(sft: Path, reward: Path, tables: Tables, tmp_path: Path) -> None:
    settings = SHORT.changed(pretraining_coef=1.0)
    with_text = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ptx", settings))
    assert len(with_text.curves["pretraining_loss"]) == 3
    with pytest.raises(UserError, match="no pretraining text"):
        train_ppo(replace(ppo_spec(sft, reward, tables, tmp_path / "none", settings), pretraining_text=None))


def test_bad_settings_are_user_errors(sft: Path, reward: Path, tables: Tables, tmp_path: Path) -> None:
    spec = ppo_spec(sft, reward, tables, tmp_path / "ppo")
    cases = {
        r"ppo\.minibatches": replace(spec, settings=SHORT.changed(minibatches=17)),
        r"missing_end_penalty needs": replace(spec, settings=SHORT.changed(missing_end_penalty=-1.0)),
        r"context has 24": replace(spec, sampling=FIXED.changed(response_tokens=19)),
        r"reward_model\.max_tokens is 16": replace(spec, sampling=FIXED.changed(response_tokens=11)),
        r"another kind of model": replace(spec, reward_model=sft),
        r"no row of split 'train'": replace(spec, prompts=write(tmp_path, "none", [prompt_row(7, "red")], PROMPTS)),
    }
    for problem, wrong in cases.items():
        with pytest.raises(UserError, match=problem):
            train_ppo(wrong)
    assert not spec.output.exists()


def test_divergence_is_a_user_error(policy: Policy, sft: Path) -> None:
    episodes = toy_episodes(policy, sft, FIXED, lambda batch: torch.full((16,), math.nan))
    with pytest.raises(UserError, match="diverged at update 1"):
        run_ppo(PolicyWithValue(policy.model), episodes, SHORT, seed=0)


def test_values_train_the_trunk_that_they_share(policy: Policy) -> None:
    shared = PolicyWithValue(policy.model)
    torch.nn.init.ones_(shared.value_head.weight)
    prompts = pad(encode_prompts(policy.tokenizer, ["red dog ."], 6), policy.tokenizer.pad_token_id, "left")
    decoding = decoding_of(policy.tokenizer, FIXED)
    _, values = shared(prompts, prompts.input_ids[:, -2:], prompts.attention_mask[:, -2:], decoding)
    values.square().sum().backward()
    trunk = [weight.grad for name, weight in policy.model.named_parameters() if ".attn." in name]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in trunk)


def test_prompts_are_used_evenly() -> None:
    order = PromptOrder(10, torch.Generator().manual_seed(0))
    drawn = [row for _ in range(5) for row in order.take(4)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] not in (drawn[10:], sorted(drawn[:10]))


@pytest.mark.parametrize("pretraining_coef", [0.0, 0.5])
def test_a_minibatch_in_several_passes_is_the_minibatch(
    sft: Path, reward: Path, tables: Tables, tmp_path: Path, pretraining_coef: float
) -> None:
    settings = PpoSettings(updates=2, batch_size=64, minibatches=1, epochs=1, pretraining_coef=pretraining_coef)
    sampling = VARIABLE.changed(response_tokens=4)  # ragged, so that passes have unequal shares
    runs = []
    for accumulate in (1, 4):
        spec = ppo_spec(sft, reward, tables, tmp_path / str(accumulate), settings.changed(accumulate=accumulate))
        runs.append(train_ppo(replace(spec, sampling=sampling)))
    for name, curve in runs[0].curves.items():
        assert runs[1].curves[name] == pytest.approx(curve, rel=1e-3, abs=1e-5), name
    whole, parts = (load_file(run.folder / "model.safetensors") for run in runs)
    for name, weight in whole.items():
        if "c_attn.bias" not in name:  # the keys' bias has a gradient of rounding alone, which Adam scales up
            torch.testing.assert_close(parts[name], weight, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match=r"ppo\.accumulate is 65, more than the 64 rows"):
        train_ppo(ppo_spec(sft, reward, tables, tmp_path / "many", settings.changed(accumulate=65)))


def test_padding_and_company_do_not_change_a_row(policy: Policy) -> None:
    with_value = PolicyWithValue(policy.model)
    torch.nn.init.normal_(with_value.value_head.weight)
    response, pad_id = [3, 5, 7], policy.tokenizer.pad_token_id
    batch = pad([[6, 4], [3, 4, 5, 6, 7, 8]], pad_id, "left")
    tail = torch.tensor([[*response, pad_id], [4, 4, 4, 4]])
    tail_mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    padded = PaddedBatch(torch.cat([batch.input_ids, tail], dim=1), torch.cat([batch.attention_mask, tail_mask], dim=1))
    decoding = decoding_of(policy.tokenizer, FIXED)
    log_probs, values = with_value(padded, tail, tail_mask, decoding)
    ids = torch.tensor([[6, 4, *response]])
    alone = PaddedBatch(ids, torch.ones_like(ids))
    expected, expected_values = with_value(alone, ids[:, -3:], torch.ones(1, 3), decoding)
    assert expected.isfinite().all() and (expected < -1e-3).all()
    torch.testing.assert_close(log_probs[:1, :3], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values[:1, :3], expected_values, atol=1e-5, rtol=1e-5)
