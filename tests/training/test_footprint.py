"""What layers keep, counted in the graphs of real models, against the estimate; and models as their headers say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
)
from zoo.make import make_tiny

from rlhf_dagster.config.training import ComputeSettings, LoraSettings
from rlhf_dagster.training.footprint.activations import Graph, kept_bytes
from rlhf_dagster.training.input_sizes import model_sizes
from rlhf_dagster.training.models.fast_layers import use_fast_layers
from rlhf_dagster.training.models.lora import add_lora, inner_model
from rlhf_dagster.training.models.low_precision.held_weights import hold_in_bfloat16

ROWS, LENGTH, WIDTH, INNER, VOCABULARY = 16, 64, 64, 172, 64
LLAMA_LIKE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FUSED: dict[str, Any] = {
    name: value for name, value in LLAMA_LIKE.items() if name not in ("intermediate_size", "num_key_value_heads")
}
MADE: dict[str, Any] = {
    "llama": lambda layers: LlamaConfig(num_hidden_layers=layers, **LLAMA_LIKE),
    "mistral": lambda layers: MistralConfig(num_hidden_layers=layers, **LLAMA_LIKE),
    "qwen2": lambda layers: Qwen2Config(num_hidden_layers=layers, **LLAMA_LIKE),
    "gpt2": lambda layers: GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=LENGTH,
        n_embd=WIDTH,
        n_layer=layers,
        n_head=8,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": lambda layers: GPTNeoXConfig(num_hidden_layers=layers, intermediate_size=4 * WIDTH, **FUSED),
    "opt": lambda layers: OPTConfig(
        num_hidden_layers=layers, ffn_dim=4 * WIDTH, word_embed_proj_dim=WIDTH, dropout=0.0, **FUSED
    ),
}
"""Configs of several architectures, with a number of layers."""
FULL, ADAPTERS = None, LoraSettings(rank=2)
# On a CPU the estimate adds what allocation loses between the tensors of adapters.
FP32 = ComputeSettings(device="cuda")
BF16 = ComputeSettings(device="cuda", precision="bf16")


def made(name: str, layers: int) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(MADE[name](layers))
    use_fast_layers(model.float().eval())
    return model


def prepared(model: PreTrainedModel, compute: ComputeSettings, lora: LoraSettings | None) -> PreTrainedModel:
    """The model as it is trained: under adapters, weights that are only read are held in the precision."""
    if lora is None:
        return model
    if compute.precision == "bf16":
        # As weights that came in bfloat16, which are all held in it.
        hold_in_bfloat16(model.bfloat16().float())
    return inner_model(add_lora(model, lora))


def kept(model: PreTrainedModel, compute: ComputeSettings) -> int:
    """Bytes of all that the graph of a forward pass holds, but for the weights themselves."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    held: dict[int, Any] = {}

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(3, VOCABULARY, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, LENGTH // 2 :] = 0
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=compute.precision == "bf16", cache_enabled=False)
    with autocast, torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=mask, use_cache=False).logits.sum()
    return sum(storage.nbytes() for storage in held.values())


@pytest.fixture(params=MADE)
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


@pytest.mark.parametrize("lora", [FULL, ADAPTERS], ids=["full", "adapters"])
@pytest.mark.parametrize("compute", [FP32, BF16], ids=["fp32", "bf16"])
def test_what_layers_keep_is_what_graphs_hold(
    name: str, compute: ComputeSettings, lora: LoraSettings | None, tmp_path: Path
) -> None:
    few, many = (prepared(made(name, layers), compute, lora) for layers in (1, 3))
    held = kept(many, compute) - kept(few, compute)
    estimates = []
    for layers in (1, 3):
        made(name, layers).save_pretrained(tmp_path / str(layers))
        estimates.append(kept_bytes([Graph(model_sizes(tmp_path / str(layers)), ROWS, LENGTH)], compute, lora))
    # Both norms of a GPT-NeoX layer read one tensor, which the estimate counts twice.
    assert estimates[1] - estimates[0] == pytest.approx(held, rel=0.08 if name == "gpt_neox" else 0.05)


def test_adapters_have_the_parameters_that_peft_gives_them(name: str, tmp_path: Path) -> None:
    model = made(name, 2)
    model.save_pretrained(tmp_path)
    adapted = add_lora(model, ADAPTERS)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert model_sizes(tmp_path).adapter_parameters(ADAPTERS) == trained


def test_adapters_on_chosen_layers_alone(tmp_path: Path) -> None:
    model, lora = made("llama", 2), LoraSettings(rank=3, targets=["q_proj", "v_proj"])
    model.save_pretrained(tmp_path)
    # Queries have 8 heads of 8, values 2.
    assert model_sizes(tmp_path).adapter_parameters(lora) == 2 * 3 * ((64 + 64) + (64 + 16))


@pytest.mark.parametrize("other", ["llama", "gpt2", "mixtral", "gemma2", "phi3", "bloom", "qwen2"])
def test_parameters_are_those_that_transformers_opens(other: str, tmp_path: Path) -> None:
    folder = make_tiny(other, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model_sizes(folder).parameters == model.num_parameters()
