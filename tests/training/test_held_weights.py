"""Weights in bfloat16 or in codes give the numbers that they stand for, wherever a model is used."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from toy_language import COMPUTE, FIXED, Tables, dpo_spec, reward_spec, sft_spec
from transformers import AutoModelForCausalLM, PreTrainedModel
from zoo.make import tiny_model

from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import adapter_base
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.adapted_layers import linear_layers
from rlhf_dagster.training.models.low_precision import quantised
from rlhf_dagster.training.models.low_precision.held_weights import BFLOAT16, cast_once, hold_in_bfloat16
from rlhf_dagster.training.models.low_precision.quantised import QuantisedLinear, coded_bytes, quantise
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.runtime.device import precision
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.sampling.vllm_backend import plain_weights
from rlhf_dagster.training.scorers.merging import merge_folder
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import PpoSpec

BF16 = COMPUTE.changed(precision="bf16")
IDS = torch.tensor([[5, 6, 7, 8, 6], [9, 10, 5, 5, 7]])
NAMES = ("gpt2", "llama", "gemma2", "granite", "gpt_neox")


def logits(model: PreTrainedModel, compute=BF16) -> torch.Tensor:
    with precision(compute), torch.no_grad():
        return model(IDS).logits.float()


@pytest.mark.parametrize("name", NAMES)
def test_held_weights_give_what_autocast_gives(name: str) -> None:
    model = tiny_model(name)
    exact, cast = logits(model, COMPUTE), logits(model)
    held = copy.deepcopy(model)
    hold_in_bfloat16(held)
    assert sum(p.nbytes for p in held.parameters()) < 0.75 * sum(p.nbytes for p in model.parameters())
    noise = (cast - exact).abs().mean()
    assert (logits(held) - cast).abs().mean() < 0.5 * noise
    rounded = copy.deepcopy(model)
    for module in rounded.modules():
        if type(module).__name__ in ("Linear", "Conv1D", "FastLinear", "FastConv1D"):
            module.weight = torch.nn.Parameter(module.weight.to(BFLOAT16).float())
    torch.testing.assert_close(logits(held, COMPUTE), logits(rounded, COMPUTE), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_cast_once_and_are_there_again_afterwards(name: str) -> None:
    model = tiny_model(name)
    exact, cast = logits(model, COMPUTE), logits(model)
    before = {name: (id(parameter), parameter.dtype) for name, parameter in model.named_parameters()}
    kinds = [type(module) for module in model.modules()]
    with precision(BF16), cast_once(model):
        inside = model(IDS).logits.float()
        assert [type(module) for module in model.modules()] != kinds
    assert {name: (id(parameter), parameter.dtype) for name, parameter in model.named_parameters()} == before
    assert [type(module) for module in model.modules()] == kinds
    assert (inside - cast).abs().mean() < 0.5 * (cast - exact).abs().mean()
    with cast_once(model):
        assert [type(module) for module in model.modules()] == kinds


def test_an_embedding_that_bfloat16_does_not_have_stays(policy) -> None:
    model = policy.model
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        rounded.get_input_embeddings().weight.copy_(rounded.get_input_embeddings().weight.to(BFLOAT16).float())
    for opened, kind in ((model, torch.float32), (rounded, BFLOAT16)):
        before = logits(opened)
        hold_in_bfloat16(opened)
        assert opened.get_input_embeddings().weight.dtype == kind
        assert opened.get_input_embeddings()(IDS).dtype == torch.float32
        torch.testing.assert_close(logits(opened), before, atol=0.05, rtol=0.05)


def test_what_is_sampled_in_bfloat16_is_what_is_measured(sft: Path) -> None:
    policy = load_policy(sft, BF16)
    assert any(parameter.dtype == BFLOAT16 for parameter in policy.model.parameters())
    prompts = ["red dog .", "good"]
    drawn = sample(policy, prompts, FIXED, 3, compute=BF16)
    again = response_log_probs(policy, prompts, [one.token_ids for one in drawn], FIXED, BF16)
    for one, row in zip(drawn, again, strict=True):
        assert one.log_probs == pytest.approx(row, abs=0.03)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_codes_are_computed_from_as_the_numbers_that_they_stand_for(name: str, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    model = tiny_model(name)
    coded = copy.deepcopy(model)
    quantise(coded, linear_layers(coded), bits, torch.device("cpu"))
    plain = copy.deepcopy(coded)
    quantised.plain_layers(plain)
    assert not any(isinstance(module, QuantisedLinear) for module in plain.modules())
    torch.testing.assert_close(logits(coded, COMPUTE), logits(plain, COMPUTE), atol=1e-4, rtol=1e-4)
    gap = (logits(coded, COMPUTE) - logits(model, COMPUTE)).abs().mean()
    assert 0 < gap < (1.5 if bits == 4 else 0.15) * logits(model, COMPUTE).std()


def test_gradients_through_codes_are_those_of_their_numbers() -> None:
    pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    coded = QuantisedLinear(layer, 4, torch.device("cpu"))
    x = torch.randn(3, 5, 64, requires_grad=True)
    coded(x).square().sum().backward()
    ours, x.grad = x.grad, None
    coded.plain_layer()(x).square().sum().backward()
    torch.testing.assert_close(ours, x.grad)


def test_four_bits_are_four_bits_and_an_eighth() -> None:
    pytest.importorskip("bitsandbytes")
    holder = torch.nn.Sequential(torch.nn.Linear(1024, 1024, bias=False))
    quantise(holder, ["0"], 4, torch.device("cpu"))
    assert 8 * coded_bytes(holder) / 1024**2 == pytest.approx(4.127, abs=0.002)


@pytest.mark.parametrize(
    ("bits", "compute"),
    [(4, BF16), *(pytest.param(*case, marks=pytest.mark.long) for case in ((4, COMPUTE), (8, COMPUTE), (8, BF16)))],
)
def test_all_stages_go_on_on_codes(bits: int, compute, base: Path, tables: Tables, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    lora = LoraSettings(rank=4, merge=False, base_bits=bits)
    spec = replace(sft_spec(base, tables, tmp_path / "sft"), compute=compute)
    sft = train_sft(replace(spec, settings=spec.settings.changed(lora=lora))).folder
    assert adapter_base(sft).bits == bits
    opened = load_policy(sft, compute).model
    assert any(isinstance(module, QuantisedLinear) for module in opened.modules())
    reward = replace(reward_spec(sft, tables, tmp_path / "reward"), compute=compute)
    scored = train_reward_model(replace(reward, settings=reward.settings.changed(lora=lora, epochs=0.5))).folder
    short = PpoSettings(updates=2, batch_size=16, learning_rate=3e-3, lora=lora, value="separate")
    asked = PpoSpec(sft, sft, scored, tables.prompts, None, tmp_path / "ppo", short, FIXED, seed=1, compute=compute)
    result = train_ppo(asked)
    rounding = 1e-4 if compute is COMPUTE else 0.05
    assert result.curves["kl"][0] == pytest.approx(0, abs=rounding)
    assert result.curves["ratio_first"] == pytest.approx([1.0] * 2, abs=rounding)
    dpo = replace(dpo_spec(sft, tables, tmp_path / "dpo"), compute=compute)
    losses = train_dpo(replace(dpo, settings=dpo.settings.changed(lora=lora, epochs=0.2))).curves["loss"]
    assert losses[0] == pytest.approx(0.6931, abs=0.01)
    merge_folder(sft, tmp_path / "merged")
    given, saved = dict(plain_weights(opened)), load_file(tmp_path / "merged/model.safetensors")
    assert given.keys() >= saved.keys()
    for name, weight in saved.items():
        torch.testing.assert_close(given[name].float(), weight, atol=1e-2 if compute is BF16 else 1e-5, rtol=0)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(
        logits(plain, COMPUTE), logits(load_policy(sft, COMPUTE).model, COMPUTE), atol=1e-3, rtol=0
    )


def test_what_cannot_be_is_one_sentence(base: Path, tables: Tables, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ValidationError, match="needs `merge: false`"):
        LoraSettings(base_bits=4)
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    spec = sft_spec(base, tables, tmp_path / "sft")
    with pytest.raises(UserError, match=r"pip install 'rlhf-dagster\[quantised\]'"):
        train_sft(replace(spec, settings=spec.settings.changed(lora=LoraSettings(merge=False, base_bits=4))))
