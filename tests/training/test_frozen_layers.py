"""Frozen layers are found, shared and passed over in models of several architectures."""

import copy
from typing import Any

import pytest
import torch
from architectures import CONFIGS, TWELVE, tiny
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import response_outputs
from rlhf_dagster.training.ppo.freezing import decoder_layers, freeze_layers, frozen_layers_work
from rlhf_dagster.training.ppo.frozen_layers import recorded, replayed, share_frozen

SHAPE = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
LAYERS = {"intermediate_size": 32, "max_position_embeddings": 24}
MODELS = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=16, n_layer=3, n_head=2, n_positions=24)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, **LAYERS)),
    "llama, tied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, **LAYERS, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, **LAYERS, num_key_value_heads=1, head_dim=8)),
    "pythia": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **LAYERS)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(**SHAPE, ffn_dim=32, max_position_embeddings=24, word_embed_proj_dim=16, dropout=0.0)
    ),
}
IDS = torch.tensor([[0, 0, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4]])
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A model whose two lowest layers are frozen, and its reference, which shares them."""
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    reference = copy.deepcopy(model)
    freeze_layers(model, 2)
    share_frozen(model, reference)
    return model, reference.requires_grad_(False)


def test_the_states_of_the_reference_are_those_of_the_policy(pair: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    model, reference = pair
    with recorded(reference) as states:
        expected, _ = response_outputs(reference, IDS, MASK, 3)
    calls: list[int] = []
    for parameter in decoder_layers(model)[1][2].parameters():
        with torch.no_grad():
            parameter.add_(0.01)
    computed, hidden = response_outputs(model, IDS, MASK, 3, hidden=True)
    for layer in decoder_layers(model)[1][:2]:
        for module in layer.children():
            module.register_forward_hook(lambda *_: calls.append(1))
    with replayed(model, states[0]):
        logits, states_again = response_outputs(model, IDS, MASK, 3, hidden=True)
    assert not calls
    torch.testing.assert_close(logits, computed)
    torch.testing.assert_close(states_again, hidden)
    assert not torch.allclose(computed, expected, atol=1e-3)
    response_outputs(model, IDS, MASK, 3)
    assert calls


def test_gradients_end_at_the_frozen_layers(pair: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    model, reference = pair
    with recorded(reference) as states:
        response_outputs(reference, IDS, MASK, 3)
    with replayed(model, states[0]):
        response_outputs(model, IDS, MASK, 3)[0].square().sum().backward()
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in model.parameters())
    lower = {id(parameter) for layer in decoder_layers(model)[1][:2] for parameter in layer.parameters()}
    lower.add(id(model.get_input_embeddings().weight))
    assert lower <= {id(parameter) for parameter in model.parameters() if not parameter.requires_grad}
    assert lower <= {id(parameter) for parameter in reference.parameters()}
    assert all(parameter.requires_grad for parameter in decoder_layers(model)[1][2].parameters())


@pytest.mark.parametrize("name", [*TWELVE, "zamba"])
def test_layers_of_every_kind_are_frozen(name: str) -> None:
    assert name in CONFIGS
    assert frozen_layers_work(tiny(name), 2) == ""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("opt", {"do_layer_norm_before": True, "word_embed_proj_dim": 16}),
        ("opt", {"do_layer_norm_before": True, "word_embed_proj_dim": 32}),
    ],
)
def test_what_stands_behind_the_layers_is_trained_wherever_the_class_lists_it(
    name: str, changes: dict[str, Any]
) -> None:
    model = tiny(name, **changes)
    freeze_layers(model, 1)
    decoder = model.model.decoder
    assert all(parameter.requires_grad for parameter in decoder.final_layer_norm.parameters())
    if decoder.project_in is not None:
        assert not any(parameter.requires_grad for parameter in decoder.project_in.parameters())
        assert all(parameter.requires_grad for parameter in decoder.project_out.parameters())


def test_a_block_that_is_used_again_above_stays_frozen() -> None:
    model = tiny("zamba")
    freeze_layers(model, 2)
    assert not any(parameter.requires_grad for parameter in model.model.layers[3].shared_transf.parameters())
    assert all(parameter.requires_grad for parameter in model.model.layers[3].linear.parameters())


def test_layers_that_need_more_than_the_states_below_are_one_sentence() -> None:
    model = tiny(
        "gemma3n_text",
        head_dim=8,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=40,
        laurel_rank=4,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 4,
    )
    assert "Gemma3nForCausalLM cannot be frozen" in (why := frozen_layers_work(model, 2))
    assert why.endswith("set `ppo.frozen_layers: 0`.")


def test_logits_that_recorded_states_do_not_give_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer above reads what a frozen one leaves beside its states."""
    model = tiny("llama")
    lower, upper = model.model.layers[0], model.model.layers[2]
    forward, notes = upper.forward, []

    def reads_the_note(states: torch.Tensor, **given: Any) -> torch.Tensor:
        factor = 2 if notes else 1
        notes.clear()
        return forward(states * factor, **given)

    monkeypatch.setattr(upper, "forward", reads_the_note)
    lower.mlp.register_forward_hook(lambda *_: notes.append("computed"))
    with pytest.raises(UserError, match=r"from recorded states its logits differ .* set `ppo.frozen_layers: 0`"):
        freeze_layers(model, 1)
