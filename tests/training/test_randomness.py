"""A model computes the same in training as in sampling, whatever its architecture makes of training mode."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import TWELVE, save_tiny, tiny
from toy_language import Tables, dpo_spec
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rlhf_dagster.training.checkpoints.randomness import always_in_evaluation_mode
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.policies import load_model

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [9, 8, 7, 6, 5, 4]])
LAYERDROP = {"d_model": 32, "ffn_dim": 48, "num_layers": 3, "attention_heads": 4, "layerdrop": 0.9}
NOISY: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "input_jitter_noise": 0.3},
    "xglm": LAYERDROP,
    "biogpt": {"layerdrop": 0.9},
    "gpt2": {},
    "falcon": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
}
"""What is random in training mode: noise on routers, layers left out, dropout."""


def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=IDS, attention_mask=torch.ones_like(IDS), use_cache=False).logits


@pytest.mark.parametrize("name", NOISY)
def test_what_is_random_in_training_mode_is_off(name: str) -> None:
    model = tiny(name, **NOISY[name])
    sampled, before = logits(model), copy.deepcopy(model).train()
    torch.manual_seed(0)
    assert not torch.equal(logits(before), logits(before))
    always_in_evaluation_mode(model)
    model.train()
    assert torch.equal(logits(model), sampled)
    assert torch.equal(logits(model), sampled)


@pytest.mark.parametrize("name", TWELVE)
def test_training_mode_computes_what_evaluation_mode_does_and_is_learned_in(name: str) -> None:
    model = tiny(name)
    sampled = logits(model)
    torch.nn.ModuleList([always_in_evaluation_mode(model)]).train()
    given = logits(model)
    assert torch.equal(given, sampled)
    given.logsumexp(dim=-1).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in model.parameters())


def test_a_copy_stays_in_evaluation_mode_by_itself() -> None:
    model = always_in_evaluation_mode(tiny("gpt2"))
    other = copy.deepcopy(model)
    assert other.train() is other
    assert not other.training
    assert not model.training


def test_dpo_of_experts_with_noise_begins_at_ln_2(base: Path, tables: Tables, tmp_path: Path) -> None:
    model = save_tiny("mixtral", AutoTokenizer.from_pretrained(base), tmp_path / "model", output_router_logits=True)
    spec = dpo_spec(model, tables, tmp_path / "dpo")
    assert train_dpo(spec).curves["loss"][0] == pytest.approx(math.log(2), abs=1e-6)


def test_no_loss_of_routers_is_computed(base: Path, tmp_path: Path) -> None:
    folder = save_tiny("mixtral", AutoTokenizer.from_pretrained(base), tmp_path / "model", output_router_logits=True)
    model = load_model(AutoModelForCausalLM, folder)
    ids = IDS % model.config.vocab_size
    assert model(input_ids=ids, labels=ids).aux_loss is None


def test_rwkv_keeps_the_weights_of_its_upper_layers(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    folder = save_tiny("rwkv", tokenizer, tmp_path / "model", num_hidden_layers=8, attention_hidden_size=32)
    model = load_model(AutoModelForCausalLM, folder)
    ids = IDS % model.config.vocab_size
    before = model(input_ids=ids).logits
    model.save_pretrained(tmp_path / "again")
    again = load_model(AutoModelForCausalLM, tmp_path / "again")
    torch.testing.assert_close(again(input_ids=ids).logits, before)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, before)
