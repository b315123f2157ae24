"""Adapters begin as nothing, are all that is trained, and end in the weights."""

from pathlib import Path

import pytest
import torch
from architectures import TWELVE, tiny
from peft.tuners.lora import LoraLayer
from zoo.make import tiny_model

from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.lora import adapters_merge, add_lora, merge_lora
from rlhf_dagster.training.models.policies import load_policy

IDS = torch.tensor([[5, 6, 7, 8]])


def test_adapters_begin_as_no_change_and_are_all_that_is_trained(sft: Path) -> None:
    plain = load_policy(sft).model
    before = plain(IDS).logits
    adapted = add_lora(load_policy(sft).model, LoraSettings(rank=4))
    assert torch.equal(adapted(IDS).logits, before)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_merged_adapters_are_in_the_weights_and_switched_off_they_are_not_there(sft: Path) -> None:
    before = load_policy(sft).model(IDS).logits
    adapted = add_lora(load_policy(sft).model, LoraSettings(rank=4))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    changed = adapted(IDS).logits
    assert not torch.allclose(changed, before, atol=1e-3)
    with adapted.disable_adapter():
        assert torch.equal(adapted(IDS).logits, before)
    merged = merge_lora(adapted)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(merged(IDS).logits, changed, atol=1e-4, rtol=0)


def test_layers_that_are_not_there_are_one_sentence(sft: Path) -> None:
    with pytest.raises(UserError, match=r"correct `lora\.targets`"):
        add_lora(load_policy(sft).model, LoraSettings(targets=["no_such_layer"]))


def test_a_layer_of_groups_gets_no_adapter() -> None:
    """DeepSeek V4's, a subclass of a linear layer, takes another shape of input."""
    assert adapters_merge(tiny_model("deepseek_v4")) == ""


@pytest.mark.parametrize("name", [*TWELVE, "zamba"])
def test_adapters_merge_in_every_kind_of_model(name: str) -> None:
    model = tiny(name)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    random = torch.get_rng_state()
    assert adapters_merge(model) == ""
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_repeated_blocks_share_an_adapter_that_is_added_once() -> None:
    adapted = add_lora(tiny("zamba"), LoraSettings(rank=2))
    first, again = (adapted.get_base_model().model.layers[layer].shared_transf for layer in (1, 3))
    assert first.self_attn.q_proj.base_layer.weight is again.self_attn.q_proj.base_layer.weight
    assert first.self_attn.q_proj.lora_B is again.self_attn.q_proj.lora_B
    with torch.no_grad():
        first.self_attn.q_proj.lora_B["default"].weight.fill_(0.1)
    delta = first.self_attn.q_proj.get_delta_weight("default")
    before = first.self_attn.q_proj.base_layer.weight.detach().clone()
    merged = merge_lora(adapted).model.layers[3].shared_transf.self_attn.q_proj.weight
    torch.testing.assert_close(merged, before + delta)


def test_a_layer_that_shares_its_weights_with_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match=r"lm_head shares its weights with model\.embed_tokens"):
        add_lora(tiny("gemma"), LoraSettings(targets=["lm_head", "q_proj"]))


def test_a_merge_that_changes_what_is_computed_is_refused() -> None:
    adapted = add_lora(tiny("llama"), LoraSettings(rank=2))
    layer = adapted.get_base_model().model.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.5)
    layer.get_delta_weight = lambda adapter: torch.zeros_like(layer.weight)
    with pytest.raises(UserError, match=r"LlamaForCausalLM cannot be merged.*leave `lora` out"):
        merge_lora(adapted)


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "granitemoe", "olmoe", "qwen3_moe"])
def test_experts_and_their_routers_stay_as_they_are(name: str) -> None:
    adapted = add_lora(tiny(name), LoraSettings(rank=2))
    places = {name.split(".")[5] for name, module in adapted.named_modules() if isinstance(module, LoraLayer)}
    assert places == {"self_attn"}


def test_merging_in_a_training_in_bfloat16_rounds_nothing() -> None:
    def merged(precision: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        adapted = add_lora(tiny_model("gpt2"), LoraSettings(rank=4))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            return merge_lora(adapted).state_dict()

    exact, rough = merged("fp32"), merged("bf16")
    assert all(torch.equal(exact[name], rough[name]) for name in exact)
