"""Rollouts by transformers' continuous batching, and by planted samplers, in the place of this package's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ranks import Asked, train_on_ranks
from toy_language import COMPUTE, FIXED, VARIABLE, Tables, about_training, reward_spec

from rlhf_dagster.config.training import ComputeSettings, PpoSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.training.models.log_probs import Decoding, decoding_of, policy_log_softmax
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.ppo import train as ppo_module
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.sampling.backend import Responses, RolloutBackend
from rlhf_dagster.training.sampling.best_of_n import best_of_n
from rlhf_dagster.training.sampling.foreign_responses import as_responses, rows_of, seeds
from rlhf_dagster.training.sampling.native import NativeRollouts, draw_uniforms
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.sampling.transformers_backend import TransformersRollouts
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.tokens import PaddedBatch, encode_prompts, pad

CONTINUOUS = COMPUTE.changed(rollout_backend="transformers")
PROMPTS = ["red dog .", "good", "blue cat bad bad dog red", "cat cat"]
LEARNING = PpoSettings(updates=25, batch_size=32, learning_rate=5e-3, kl_coef=0.05)
SHORT = PpoSettings(updates=4, batch_size=16, learning_rate=3e-3)


def often_ending(policy: Policy) -> Policy:
    with torch.no_grad():
        policy.model.transformer.wte.weight[policy.tokenizer.eos_token_id] *= 3
    return policy


def encoded(policy: Policy, prompts: list[str]) -> PaddedBatch:
    return pad(encode_prompts(policy.tokenizer, prompts, 6), policy.tokenizer.pad_token_id, "left")


def drawn(policy: Policy, sampling: SamplingSettings, seed: int, copies: int = 4, rows: int = 64) -> Responses:
    uniforms = draw_uniforms(4 * copies, sampling.response_tokens, torch.Generator().manual_seed(seed))
    decoding = decoding_of(policy.tokenizer, sampling)
    backend = TransformersRollouts(CONTINUOUS, rows)
    return backend.generate(policy.model, encoded(policy, PROMPTS * copies), uniforms, decoding)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("sampling", [FIXED, VARIABLE])
@pytest.mark.parametrize("rows", [3, 64])
def test_recorded_log_probs_are_the_policy_s(
    policy: Policy, sampling: SamplingSettings, temperature: float, rows: int
) -> None:
    policy, sampling = often_ending(policy), sampling.changed(temperature=temperature)
    responses = drawn(policy, sampling, seed=0, rows=rows)
    lengths = responses.mask.sum(dim=1).tolist()
    tokens = [row[:n] for row, n in zip(responses.tokens.tolist(), lengths, strict=True)]
    expected = response_log_probs(policy, PROMPTS * 4, tokens, sampling)
    for row, numbers, n in zip(responses.log_probs.tolist(), expected, lengths, strict=True):
        assert row[:n] == pytest.approx(numbers, abs=1e-5)
        assert not any(row[n:])
    assert (len(set(lengths)) > 1) == (not sampling.fixed_length)
    assert not {policy.tokenizer.pad_token_id, policy.tokenizer.unk_token_id} & {t for row in tokens for t in row}


def test_frequencies_follow_the_distribution(policy: Policy) -> None:
    sampling, count = FIXED.changed(response_tokens=1, temperature=0.7), 2000
    decoding = decoding_of(policy.tokenizer, sampling)
    uniforms = draw_uniforms(count, 1, torch.Generator().manual_seed(3))
    prompts = encoded(policy, ["red"] * count)
    responses = TransformersRollouts(CONTINUOUS, 256).generate(policy.model, prompts, uniforms, decoding)
    expected = policy_log_softmax(policy.model(prompts.input_ids[:1]).logits[0, -1], decoding).exp()
    counts = torch.bincount(responses.tokens[:, 0], minlength=len(expected))
    # Four standard deviations of a binomial share from 2,000 draws are at most 0.045.
    torch.testing.assert_close(counts / count, expected, atol=0.045, rtol=0)


def test_the_seed_decides_and_other_generators_are_left_alone(policy: Policy) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same, other = (drawn(policy, FIXED, seed) for seed in (6, 6, 7))
    assert torch.equal(one.tokens, same.tokens)
    assert torch.equal(one.log_probs, same.log_probs)
    assert not torch.equal(one.tokens, other.tokens)
    assert torch.equal(before, torch.get_rng_state())


def test_greedy_sampling_is_that_of_this_package(policy: Policy) -> None:
    with torch.no_grad():
        policy.model.transformer.ln_f.weight.mul_(8)  # so that rounding cannot change which token is likeliest
    ours, theirs = (sample(policy, PROMPTS, VARIABLE, 0, greedy=True, compute=c) for c in (COMPUTE, CONTINUOUS))
    assert [one.token_ids for one in ours] == [one.token_ids for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rollout_backend": "transformers", "precision": "bf16"}, "samples in fp32"),
        ({"rollout_backend": "vllm", "processes": 2, "launch": "process"}, "samples for one process"),
    ],
)
def test_what_a_backend_cannot_do_is_refused_with_the_settings(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ComputeSettings(**changes)


def test_what_fails_in_its_thread_is_one_sentence(policy: Policy) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no such kernel.\nAnd more.")

    hook = policy.model.transformer.register_forward_hook(fail)
    with pytest.raises(UserError, match=r"GPT2LMHeadModel here \(no such kernel\); set `compute.rollout_backend"):
        drawn(policy, FIXED, seed=0)
    hook.remove()
    assert drawn(policy, FIXED, seed=0).mask.all()


def test_samples_and_best_of_n_come_from_the_backend_of_compute(policy: Policy) -> None:
    native = sample(policy, PROMPTS, VARIABLE, 5, 3, compute=COMPUTE)
    samples = sample(policy, PROMPTS, VARIABLE, 5, 3, compute=CONTINUOUS)
    assert len(samples) == 12
    assert [one.text for one in samples] != [one.text for one in native]
    repeated = [prompt for prompt in PROMPTS for _ in range(3)]
    expected = response_log_probs(policy, repeated, [one.token_ids for one in samples], VARIABLE)
    assert [one.log_probs for one in samples] == expected
    best = best_of_n(policy, PROMPTS, lambda _, texts: [len(text) for text in texts], 4, VARIABLE, 5, CONTINUOUS)
    assert len(best) == 4
    assert all(one.score >= one.mean_score for one in best)
    assert sample(policy, [], VARIABLE, 0, compute=CONTINUOUS) == []


def test_rows_and_seeds_by_hand() -> None:
    batch = pad([[5, 6, 7], [8]], 0, "left")
    assert rows_of(batch) == [[5, 6, 7], [8]]
    assert seeds(torch.tensor([[0.5, 0.1], [2**-53, 0.9]], dtype=torch.float64)) == [2**52, 1]


@pytest.mark.parametrize(
    ("fixed", "ids", "numbers"),
    [
        pytest.param(True, [5, 6], [-1.0, -1.0], id="short"),
        pytest.param(False, [5, 6], [-1.0, -1.0], id="without an end"),
        pytest.param(False, [], [], id="empty"),
        pytest.param(False, [5, 6, 7, 8], [-1.0] * 4, id="long"),
        pytest.param(False, [5, 6, 7], [-1.0], id="without log-probs"),
    ],
)
def test_a_response_that_decoding_does_not_allow_is_refused(fixed: bool, ids: list[int], numbers: list[float]) -> None:
    decoding = Decoding(1.0, 3, fixed, pad_id=0, end_id=1, suppressed=(0,))
    whole = as_responses([[5, 6, 7], [5, 6, 1]], [[-1.0] * 3] * 2, decoding, torch.device("cpu"))
    assert whole.mask.all()
    with pytest.raises(UserError, match="neither ended nor 3 tokens long"):
        as_responses([[5, 6, 7], ids], [[-1.0] * 3, numbers], decoding, torch.device("cpu"))


@pytest.fixture(scope="module")
def reward(sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_reward_model(reward_spec(sft, tables, tmp_path_factory.mktemp("models") / "reward")).folder


def ppo_spec(
    sft: Path, reward: Path, tables: Tables, output: Path, settings: PpoSettings, compute: ComputeSettings = CONTINUOUS
) -> PpoSpec:
    return PpoSpec(sft, sft, reward, tables.prompts, tables.text, output, settings, FIXED, seed=1, compute=compute)


@pytest.mark.parametrize("value", ["shared", pytest.param("separate", marks=pytest.mark.long)])
def test_ppo_learns_from_it(sft: Path, reward: Path, tables: Tables, tmp_path: Path, value: str) -> None:
    settings = LEARNING.changed(value=value, validate_every=25)
    result = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ppo", settings))
    curves = result.curves
    assert curves["validation_reward"][-1] > curves["validation_reward"][0] + 1
    assert curves["ratio_first"] == pytest.approx([1.0] * 25, abs=1e-4)
    assert max(curves["sampler_kl"]) < 1e-8
    assert not any(curves["sampler_weight_clipped"])
    assert about_training(result.warnings) == []


@pytest.mark.parametrize("changes", [{"advantages": "rloo", "samples_per_prompt": 4}, {"kl_penalty": "k3"}])
def test_other_estimators_run_on_it(sft: Path, reward: Path, tables: Tables, tmp_path: Path, changes: dict) -> None:
    result = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ppo", SHORT.changed(**changes)))
    assert len(result.curves["sampler_kl"]) == SHORT.updates


def test_an_interrupted_training_goes_on_bit_for_bit(sft: Path, reward: Path, tables: Tables, tmp_path: Path) -> None:
    whole = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "whole", SHORT))
    spec, asked = ppo_spec(sft, reward, tables, tmp_path / "ppo", SHORT), iter(["", "stop"])
    with pytest.raises(TrainingStopped):
        train_ppo(spec, checkpointing=Checkpointing(tmp_path / "state", 0, lambda: next(asked)))
    result = train_ppo(spec, checkpointing=Checkpointing(tmp_path / "state", 0))
    assert result.curves == whole.curves
    assert folder_digest(result.folder) == folder_digest(whole.folder)


def test_each_of_two_ranks_samples_its_part(sft: Path, reward: Path, tables: Tables, tmp_path: Path) -> None:
    outcomes = train_on_ranks(tmp_path, [Asked("ppo", ppo_spec(sft, reward, tables, tmp_path / "ppo", SHORT))])
    (one,), (other,) = outcomes
    assert one["curves"] == other["curves"]
    assert one["curves"]["ratio_first"] == pytest.approx([1.0] * 4, abs=1e-4)
    assert max(one["curves"]["sampler_kl"]) < 1e-8
    assert min(one["curves"]["distinct_responses"]) > 0.5  # the ranks do not draw the same


class Planted:
    """Samples with this package's arithmetic, at a temperature of its own and with tokens suppressed of its own."""

    own_arithmetic = False

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def generate(
        self, model: Any, prompts: PaddedBatch, uniforms: Any, decoding: Decoding, value_head: Any = None
    ) -> Responses:
        return NativeRollouts().generate(model, prompts, uniforms, replace(decoding, **self.changes))

    def close(self) -> None:
        """Nothing is kept."""


def planted(monkeypatch: pytest.MonkeyPatch, backend: RolloutBackend) -> None:
    @contextmanager
    def opened(*_: Any) -> Iterator[RolloutBackend]:
        yield backend

    monkeypatch.setattr(ppo_module, "rollout_backend", opened)


def test_a_sampler_at_another_temperature_is_measured_corrected_and_alarming(
    sft: Path, reward: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, Planted(temperature=1.5))
    settings = LEARNING.changed(importance_cap=1.2)
    result = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ppo", settings))
    curves = result.curves
    # The surer the policy, the more a temperature changes.
    assert 0.001 < curves["sampler_kl"][0] < 0.01 < curves["sampler_kl"][-1]
    assert 0 < max(curves["sampler_weight_clipped"]) < 1
    # The ratio is that of two forward passes of the trainer, whoever has sampled.
    assert curves["ratio_first"] == pytest.approx([1.0] * 25, abs=1e-4)
    assert curves["reward"][-1] > curves["reward"][0] + 1
    assert any("samples from a policy" in text for text in result.warnings)
    other = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "cap", settings.changed(importance_cap=3.0)))
    assert folder_digest(other.folder) != folder_digest(result.folder)


def test_a_sampler_that_agrees_changes_nothing_but_rounding(
    sft: Path, reward: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "native", SHORT, COMPUTE))
    planted(monkeypatch, Planted())
    result = train_ppo(ppo_spec(sft, reward, tables, tmp_path / "planted", SHORT))
    assert set(result.curves) - set(native.curves) == {"sampler_kl", "sampler_weight_clipped"}
    for name, curve in native.curves.items():
        assert result.curves[name] == pytest.approx(curve, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("validate_every", [None, 4])
def test_a_sampler_of_tokens_that_cannot_be_drawn_ends_the_training(
    sft: Path,
    reward: Path,
    tables: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    validate_every: int | None,
) -> None:
    planted(monkeypatch, Planted(suppressed=()))
    settings = SHORT.changed(updates=40, validate_every=validate_every)
    with pytest.raises(UserError, match="a token that the policy never draws"):
        train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ppo", settings))
    assert not (tmp_path / "ppo").exists()


def test_a_sampler_without_the_policy_s_tokens_gives_no_samples(policy: Policy) -> None:
    with pytest.raises(UserError, match="a token that the policy never draws"):
        sample(policy, PROMPTS, FIXED, 0, 50, backend=Planted(suppressed=()))


def test_a_cap_without_a_foreign_backend_has_no_use(sft: Path, reward: Path, tables: Tables, tmp_path: Path) -> None:
    settings = SHORT.changed(importance_cap=3.0)
    with pytest.raises(UserError, match=r"ppo\.importance_cap has no use"):
        train_ppo(ppo_spec(sft, reward, tables, tmp_path / "ppo", settings, COMPUTE))


def test_the_backend_of_compute_is_opened_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[TransformersRollouts] = []

    def close(self: TransformersRollouts) -> None:
        closed.append(self)

    monkeypatch.setattr(TransformersRollouts, "close", close)
    with rollout_backend(None, 8) as native, rollout_backend(CONTINUOUS, 8) as other:
        assert native.own_arithmetic
        assert not other.own_arithmetic
    assert closed == [other]
