"""Gradient checkpointing: the same gradients from less that is kept, in every stage."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import tiny
from toy_language import COMPUTE, FIXED, Tables, dpo_spec, reward_spec, sft_spec
from transformers import PreTrainedModel
from zoo.make import tiny_model

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.checkpoints.randomness import always_in_evaluation_mode
from rlhf_dagster.training.models.lora import add_lora
from rlhf_dagster.training.models.passes.logit_pieces import next_token_loss, plain_model
from rlhf_dagster.training.models.passes.recomputed_layers import recompute_layers
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import PpoSpec, silent

ARCHITECTURES = ("gpt2", "llama", "gemma2", "mamba", "mixtral", "opt", "bert")
IDS = torch.randint(4, 40, (3, 11), generator=torch.Generator().manual_seed(0))
LORA = LoraSettings(rank=2)


def trained(model: Any) -> tuple[dict[str, torch.Tensor], int]:
    """The gradient of each weight, and the bytes that the forward pass keeps for it beside the weights."""
    own, kept = {weight.data_ptr() for weight in model.parameters()}, {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = next_token_loss(model, IDS[:, 1:], IDS[:, 1:] > 0, input_ids=IDS[:, :-1])
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return gradients, sum(size for place, size in kept.items() if place not in own)


@pytest.mark.parametrize("lora", [None, LORA], ids=["all weights", "adapters"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_are_the_same(name: str, lora: LoraSettings | None) -> None:
    plain: Any = always_in_evaluation_mode(tiny_model(name))
    again = copy.deepcopy(plain)
    if lora is not None:
        plain, again = add_lora(plain, lora), add_lora(again, lora)
        for name_, weight in plain.named_parameters():
            if "lora" in name_:
                weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name_)))
        again.load_state_dict(plain.state_dict())
    recompute_layers(plain_model(again))
    (right, kept), (ours, less) = trained(plain), trained(again)
    assert ours.keys() == right.keys()
    for weight, gradient in right.items():
        torch.testing.assert_close(ours[weight], gradient, rtol=1e-5, atol=1e-7, msg=weight)
    assert less < kept


def test_only_the_inputs_of_layers_are_kept() -> None:
    plain = tiny("llama", num_hidden_layers=12)
    again = copy.deepcopy(plain)
    recompute_layers(again)
    assert trained(again)[1] < 0.25 * trained(plain)[1]


def test_nothing_is_computed_again_without_gradients() -> None:
    model = tiny("llama")
    calls: list[int] = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    recompute_layers(model)
    calls.clear()
    with torch.no_grad():
        model(IDS)
    assert len(calls) == 1
    model(IDS).logits.sum().backward()
    assert len(calls) == 3


def test_a_layer_that_remembers_is_refused() -> None:
    """What depends on how often it was called cannot be computed again."""
    model = tiny("llama")
    kind = type(model.model.layers[1])

    class Counting(kind):  # type: ignore[misc, valid-type]
        calls = 0

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            type(self).calls += 1
            return super().forward(*args, **kwargs) * self.calls

    model.model.layers[1].__class__ = Counting
    with pytest.raises(UserError, match=r"LlamaForCausalLM cannot compute .* set compute.gradient_checkpointing to"):
        recompute_layers(model)


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    model: PreTrainedModel = tiny("llama")
    model.model.layers.append(copy.deepcopy(model.model.layers[0]))  # which nobody calls
    with pytest.raises(UserError, match="no list of layers runs once"):
        recompute_layers(model)


PPO = PpoSettings(updates=2, batch_size=8, learning_rate=1e-3)
PPO_MODES = {
    "all weights": PPO,
    "adapters": PPO.changed(lora=LORA, value="separate"),
    "frozen": PPO.changed(frozen_layers=1),
}


def stages(sft: Path, reward: Path, tables: Tables, output: Path) -> dict[str, tuple[str, Any]]:
    sft_, dpo, scores = sft_spec(sft, tables, output), dpo_spec(sft, tables, output), reward_spec(sft, tables, output)
    ppo = PpoSpec(sft, sft, reward, tables.prompts, tables.text, output, PPO, FIXED, compute=COMPUTE)
    found: dict[str, tuple[str, Any]] = {
        "sft": ("sft", sft_),
        "sft, adapters": ("sft", replace(sft_, settings=sft_.settings.changed(lora=LORA))),
        "reward model": ("reward_model", replace(scores, settings=scores.settings.changed(epochs=0.5))),
        "dpo, adapters": ("dpo", replace(dpo, settings=dpo.settings.changed(lora=LORA, epochs=0.5))),
    }
    return found | {f"ppo, {mode}": ("ppo", replace(ppo, settings=settings)) for mode, settings in PPO_MODES.items()}


SHORT = ("sft, adapters", "reward model", "dpo, adapters", "ppo, frozen")
LONG = ("sft", "ppo, all weights", "ppo, adapters")
"""What they do, the others do too."""


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_stages_learn_the_same(name: str, deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> None:
    results = []
    for again in (False, True):
        kind, spec = stages(deep_sft, deep_reward, tables, tmp_path / f"{again}")[name]
        spec = replace(spec, compute=spec.compute.changed(gradient_checkpointing=again))
        results.append(train_here(kind, spec, silent, KEEP_NOTHING))
    for curve, values in results[0].curves.items():
        assert results[1].curves[curve] == pytest.approx(values, rel=1e-4, abs=1e-5), curve
