"""Adapters begin as nothing, are all that is trained, and end in the weights."""

from pathlib import Path

import pytest
import torch

from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.lora import add_lora, merge_lora
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
