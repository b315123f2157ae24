"""Rollouts by vLLM: with a planted engine of the same interface and, where vLLM is installed, with the real one."""

import random
import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy_language import COMPUTE, FIXED, TINY, VARIABLE, Tables, about_training, reward_spec, sentence, sft_spec
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_dagster.config.training import LoraSettings, PpoSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import Decoding, decoding_of
from rlhf_dagster.training.models.lora import add_lora, inner_model, merge_lora
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sampling.native import draw_uniforms, generate
from rlhf_dagster.training.sampling.rollouts import rollout_backend
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.sampling.vllm_backend import VllmRollouts, cache_bytes, plain_weights
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.tokens import encode_prompts, pad

VLLM = COMPUTE.changed(rollout_backend="vllm")
PROMPTS = ["red dog .", "good", "blue cat bad bad dog red", "cat cat"]
SETTINGS = PpoSettings(updates=3, batch_size=16, learning_rate=3e-3)


@dataclass
class SamplingParams:
    """Those that vLLM is given here; it refuses others."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    ignore_eos: bool
    stop_token_ids: list[int] | None
    allowed_token_ids: list[int]
    logprobs: int
    detokenize: bool
    seed: int | None


class PlantedEngine:
    """Samples by this package from a model of its own, which is made from a config and has the weights it is given."""

    made: list["PlantedEngine"]

    def __init__(self, model: str, max_num_seqs: int, max_model_len: int, **options: Any) -> None:
        self.options = options | {"max_num_seqs": max_num_seqs, "max_model_len": max_model_len}
        torch.manual_seed(options["seed"])  # as the engine does, in this process
        config = AutoConfig.from_pretrained(model)
        self.model = AutoModelForCausalLM.from_config(config).eval()
        assert config.architectures == [type(self.model).__name__]
        self.reloads = 0
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=partial(setattr, self, "model", None)))
        self.made.append(self)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        self.model.load_state_dict(dict(kwargs["weights_iterator"]), strict=True)
        self.reloads += 1

    def generate(self, prompts: list[dict], parameters: list[SamplingParams], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        return [self._one(prompt["prompt_token_ids"], each) for prompt, each in zip(prompts, parameters, strict=True)]

    def _one(self, ids: list[int], parameters: SamplingParams) -> Any:
        assert len(ids) + parameters.max_tokens <= self.options["max_model_len"]
        assert (parameters.top_p, parameters.top_k, parameters.ignore_eos, parameters.logprobs) == (1.0, 0, True, 0)
        end = parameters.stop_token_ids
        suppressed = tuple(set(range(self.model.config.vocab_size)) - set(parameters.allowed_token_ids))
        greedy = parameters.temperature == 0
        decoding = Decoding(
            parameters.temperature or 1.0, parameters.max_tokens, end is None, 0, end[0] if end else -1, suppressed
        )
        uniforms = None
        if not greedy:
            uniforms = draw_uniforms(1, parameters.max_tokens, torch.Generator().manual_seed(parameters.seed or 0))
        drawn = generate(self.model, pad([ids], 0, "left"), uniforms, decoding)
        length = int(drawn.mask.sum())
        tokens, numbers = drawn.tokens[0, :length].tolist(), drawn.log_probs[0, :length].tolist()
        steps = [{token: SimpleNamespace(logprob=number)} for token, number in zip(tokens, numbers, strict=True)]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(tokens), logprobs=steps)])


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> list[PlantedEngine]:
    """The engines that are made."""
    monkeypatch.setattr(PlantedEngine, "made", [], raising=False)
    module = SimpleNamespace(LLM=PlantedEngine, SamplingParams=SamplingParams)
    monkeypatch.setitem(sys.modules, "vllm", module)  # type: ignore[arg-type]
    return PlantedEngine.made


@pytest.fixture(scope="module")
def wide_sft(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with heads as wide as vLLM's kernels want them."""
    folder, rng = tmp_path_factory.mktemp("wide"), random.Random(3)
    texts = [sentence(rng, 20) for _ in range(120)]
    base = make_tiny_model(texts, TINY.changed(width=64, heads=1), folder / "base", COMPUTE).folder
    return train_sft(sft_spec(base, tables, folder / "sft")).folder


@pytest.fixture(scope="module")
def reward(wide_sft: Path, tables: Tables) -> Path:
    return train_reward_model(reward_spec(wide_sft, tables, wide_sft.with_name("reward"))).folder


WITH_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")


@pytest.fixture(params=["planted", pytest.param("real", marks=WITH_VLLM)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which engine is used."""
    if request.param == "planted":
        request.getfixturevalue("planted")
    else:
        import vllm

        monkeypatch.setattr(vllm, "LLM", partial(vllm.LLM, enforce_eager=True))  # compiling takes a minute
    return request.param


@pytest.mark.parametrize("sampling", [FIXED.changed(temperature=0.7), VARIABLE])
def test_responses_are_the_policy_s_whatever_its_weights(
    wide_sft: Path, engine: str, sampling: SamplingSettings
) -> None:
    policy = load_policy(wide_sft, COMPUTE)
    embeddings, word = policy.model.transformer.wte.weight, policy.tokenizer.convert_tokens_to_ids("dog")
    with torch.no_grad():  # ending is as likely as a word
        embeddings[policy.tokenizer.eos_token_id] = embeddings[word]
    decoding = decoding_of(policy.tokenizer, sampling)
    prompts = pad(encode_prompts(policy.tokenizer, PROMPTS * 4, 6), decoding.pad_id, "left")
    with rollout_backend(VLLM, 8) as backend:
        for seed in range(2):
            uniforms = draw_uniforms(16, decoding.max_tokens, torch.Generator().manual_seed(seed))
            responses = backend.generate(policy.model, prompts, uniforms, decoding)
            lengths = responses.mask.sum(dim=1).tolist()
            tokens = [row[:n] for row, n in zip(responses.tokens.tolist(), lengths, strict=True)]
            expected = response_log_probs(policy, PROMPTS * 4, tokens, sampling)
            for row, numbers, n in zip(responses.log_probs.tolist(), expected, lengths, strict=True):
                assert row[:n] == pytest.approx(numbers, abs=1e-4)
            assert (len(set(lengths)) > 1) == (not sampling.fixed_length)
            with torch.no_grad():  # as an optimiser would
                for parameter in policy.model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)


def test_ppo_and_samples_come_from_the_engine(
    wide_sft: Path, reward: Path, tables: Tables, tmp_path: Path, engine: str
) -> None:
    paths = (wide_sft, wide_sft, reward, tables.prompts, tables.text, tmp_path / "ppo")
    spec = PpoSpec(*paths, SETTINGS, FIXED, seed=1, compute=VLLM)
    result = train_ppo(spec)
    assert max(result.curves["sampler_kl"]) < 1e-6
    assert about_training(result.warnings) == []
    assert len(sample(result.folder, PROMPTS, VARIABLE, 0, 2, compute=VLLM)) == 8
    if engine == "planted":
        trained, sampled = PlantedEngine.made
        assert (trained.reloads, sampled.reloads) == (SETTINGS.updates, 1)
        assert trained.model is sampled.model is None  # both were shut down


def test_without_vllm_one_sentence_says_what_to_install(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"needs vLLM; `.*pip install 'rlhf-dagster\[vllm\]'`"):
        sample(policy, PROMPTS, FIXED, 0, compute=VLLM)


def test_an_engine_that_cannot_start_is_one_sentence(
    policy: Policy, planted: list[PlantedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Engine core failed.\nSee above.")

    monkeypatch.setattr(PlantedEngine, "__init__", fail)
    with pytest.raises(UserError, match=r"vLLM cannot sample from GPT2LMHeadModel here \(Engine core failed\)"):
        sample(policy, PROMPTS, FIXED, 0, compute=VLLM)


def test_one_engine_serves_until_sequences_become_longer(policy: Policy, planted: list[PlantedEngine]) -> None:
    before, backend = torch.get_rng_state(), VllmRollouts(VLLM, 8)
    for words, engines in (("red red red", 1), ("red", 1), ("red " * 5, 2)):
        prompts = pad(encode_prompts(policy.tokenizer, [words], 6), policy.tokenizer.pad_token_id, "left")
        uniforms = draw_uniforms(1, 5, torch.Generator().manual_seed(0))
        backend.generate(policy.model, prompts, uniforms, decoding_of(policy.tokenizer, FIXED))
        assert len(planted) == engines
    assert [engine.options["max_model_len"] for engine in planted] == [3 + 5, 5 + 5]
    assert planted[0].model is None
    options = planted[1].options
    assert options["max_num_seqs"] == 8
    assert options["dtype"] == "float32"
    assert options["logprobs_mode"] == "processed_logprobs"
    assert not options["enable_prefix_caching"]
    assert torch.equal(before, torch.get_rng_state())


def test_a_row_draws_the_same_whatever_is_beside_it(policy: Policy, planted: list[PlantedEngine]) -> None:
    backend, decoding = VllmRollouts(VLLM, 8), decoding_of(policy.tokenizer, FIXED)
    encoded = encode_prompts(policy.tokenizer, PROMPTS, 6)
    uniforms = draw_uniforms(4, 5, torch.Generator().manual_seed(0))
    together = backend.generate(policy.model, pad(encoded, decoding.pad_id, "left"), uniforms, decoding)
    alone = backend.generate(policy.model, pad(encoded[2:3], decoding.pad_id, "left"), uniforms[2:3], decoding)
    assert torch.equal(together.tokens[2:3], alone.tokens)


def test_plain_weights_are_those_of_the_merged_model(policy: Policy) -> None:
    adapted = add_lora(policy.model, LoraSettings(rank=2, alpha=4.0))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    before = {name: parameter.clone() for name, parameter in adapted.named_parameters()}
    weights = dict(plain_weights(inner_model(adapted)))
    assert all(torch.equal(parameter, before[name]) for name, parameter in adapted.named_parameters())
    merged = merge_lora(adapted).state_dict()
    assert weights.keys() == merged.keys()
    for name, weight in merged.items():
        torch.testing.assert_close(weights[name], weight)


def test_the_cache_holds_all_sequences_in_whole_blocks() -> None:
    config = SimpleNamespace(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=32)
    config.get_text_config = lambda: config
    # (8 + 1) sequences of 2 blocks of 128 tokens: keys and values of 2 layers with 2 heads of width 8 in float32.
    assert cache_bytes(config, 8, 130, torch.float32) == 9 * 256 * 2 * 2 * 2 * 8 * 4  # type: ignore[arg-type]
