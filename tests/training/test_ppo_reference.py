"""The reference stays the SFT model, whatever it shares with the policy that is trained."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from ppo_modes import MODES, spec_of
from torch import Tensor
from toy_language import COMPUTE, FIXED, Tables
from transformers import PreTrainedModel

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import response_outputs
from rlhf_dagster.training.models.lora import without_adapters
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.ppo.freezing import decoder_layers, freeze_layers
from rlhf_dagster.training.ppo.frozen_layers import share_frozen
from rlhf_dagster.training.ppo.opening.setup import PpoSetup, prepare_ppo
from rlhf_dagster.training.ppo.policy import PolicyWithValueModel, PpoPolicy, response_values
from rlhf_dagster.training.ppo.rollout import collect, learning_targets
from rlhf_dagster.training.ppo.train import run_ppo, train_ppo
from rlhf_dagster.training.ppo.update import minibatch_loss
from rlhf_dagster.training.reward.scores import load_reward_model, score_tokens
from rlhf_dagster.training.sampling.native import NativeRollouts, draw_uniforms
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.tokens import PaddedBatch, pad

Spec = Callable[[str], PpoSpec]
IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3]])


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> Spec:
    def of(mode: str) -> PpoSpec:
        made = spec_of(mode, deep_sft, deep_reward, tables, tmp_path / mode)
        return replace(made, settings=made.settings.changed(updates=10, learning_rate=2e-2))

    return of


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return response_outputs(model, IDS, torch.ones_like(IDS), 4)[0]


def reference_logits(setup: PpoSetup) -> Tensor:
    with without_adapters(setup.episodes.reference) as reference:
        return logits(reference)


def trained(spec: PpoSpec) -> PpoSetup:
    setup = prepare_ppo(spec)
    run_ppo(setup.policy, setup.episodes, spec.settings, spec.seed, controller=setup.controller)
    return setup


@pytest.mark.parametrize("mode", ["separate", "lora", "lora_separate", "frozen", "frozen_separate"])
def test_ten_updates_leave_the_reference_the_sft_model(mode: str, spec: Spec, deep_sft: Path) -> None:
    setup, expected = trained(spec(mode)), logits(load_policy(deep_sft, COMPUTE).model)
    assert torch.equal(reference_logits(setup), expected)
    assert (logits(setup.policy.model) - expected).abs().max() > 0.05
    assert isinstance(setup.episodes.reference, PeftModel) == ("lora" in mode)


def test_adapters_on_an_earlier_policy_are_held_to_a_copy_of_sft(spec: Spec, deep_sft: Path) -> None:
    first = train_ppo(spec("lora")).folder
    setup = trained(replace(spec("lora"), start=first))
    assert not isinstance(setup.episodes.reference, PeftModel)
    expected = logits(load_policy(deep_sft, COMPUTE).model)
    assert torch.equal(reference_logits(setup), expected)
    assert (logits(load_policy(first, COMPUTE).model) - expected).abs().max() > 0.05


def test_only_adapters_and_values_are_trained(spec: Spec) -> None:
    assert all("lora_" in name or name.startswith("value_head") for name in prepare_ppo(spec("lora")).policy.trained())
    names = prepare_ppo(spec("lora_separate")).policy.trained()
    assert any(name.startswith("value_model") and "lora_" in name for name in names)
    assert all("lora_" in name or ".score." in name for name in names)


def test_frozen_layers_are_shared_and_the_others_are_not(spec: Spec) -> None:
    setup = trained(spec("frozen"))
    model, reference = setup.policy.model, setup.episodes.reference
    names = {name for name, parameter in model.named_parameters() if parameter is reference.get_parameter(name)}  # type: ignore[union-attr]
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.h.0.mlp.c_fc.weight"} <= names
    assert not any(name.startswith(("transformer.h.1", "transformer.ln_f")) for name in names)
    assert model.lm_head.weight is model.transformer.wte.weight is reference.lm_head.weight  # type: ignore[union-attr]


def test_frozen_layers_run_once_for_reference_and_all_passes(spec: Spec) -> None:
    setup, settings = prepare_ppo(spec("frozen")), spec("frozen").settings
    batch = pad(list(setup.episodes.prompts[:6]), setup.episodes.decoding.pad_id, "left")
    uniforms = draw_uniforms(6, FIXED.response_tokens, torch.Generator().manual_seed(0))
    rollout = collect(setup.policy, setup.episodes, batch, uniforms=uniforms, settings=settings)
    targets, rows = learning_targets(rollout, settings, 0.1), torch.tensor([4, 1, 3])
    first, calls = decoder_layers(setup.policy.model)[1][0], []
    first.mlp.register_forward_hook(lambda *_: calls.append(1))
    decoding = setup.episodes.decoding
    replayed, _ = minibatch_loss(setup.policy, rollout, targets, rows, settings=settings, decoding=decoding)
    assert not calls
    computed, _ = minibatch_loss(
        setup.policy, replace(rollout, trunk=None), targets, rows, settings=settings, decoding=decoding
    )
    assert calls
    torch.testing.assert_close(replayed, computed, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["separate", "frozen", "function"])
def test_episodes_in_parts_are_the_episodes_of_one_batch(mode: str, spec: Spec, monkeypatch: Any) -> None:
    setup, settings = prepare_ppo(spec(mode)), spec(mode).settings
    batch = pad(list(setup.episodes.prompts[:7]), setup.episodes.decoding.pad_id, "left")
    uniforms = draw_uniforms(7, FIXED.response_tokens, torch.Generator().manual_seed(0))
    asked, sizes = {"uniforms": uniforms, "settings": settings, "texts": setup.episodes.texts[:7]}, []
    real = NativeRollouts.generate

    def sized(self: NativeRollouts, model: Any, prompts: Any, *more: Any) -> Any:
        sizes.append(len(prompts.input_ids))
        return real(self, model, prompts, *more)

    monkeypatch.setattr(NativeRollouts, "generate", sized)
    whole, parts = (
        collect(setup.policy, replace(setup.episodes, rows_at_once=rows), batch, **asked) for rows in (None, 3)
    )
    assert sizes == [7, 3, 3, 1]
    for name in (one.name for one in fields(whole) if one.name != "batch"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=1e-5)
    for one, other in zip(parts.batch, whole.batch, strict=True):
        assert torch.equal(one, other)


def test_an_update_samples_as_many_prompts_at_once_as_sampling_says(spec: Spec) -> None:
    asked = spec("separate")
    setup = prepare_ppo(replace(asked, sampling=asked.sampling.changed(batch_size=5)))
    assert setup.episodes.sampled_at_once(16) == 5
    assert setup.episodes.sampled_at_once(4) == 4


def test_the_losses_are_added_by_their_weights(spec: Spec) -> None:
    setup, settings = prepare_ppo(spec("separate")), spec("separate").settings.changed(kl_penalty="k2")
    batch = pad(list(setup.episodes.prompts[:6]), setup.episodes.decoding.pad_id, "left")
    uniforms = draw_uniforms(6, FIXED.response_tokens, torch.Generator().manual_seed(0))
    rollout = collect(setup.policy, setup.episodes, batch, uniforms=uniforms, settings=settings)
    rollout = replace(rollout, reference_log_probs=rollout.reference_log_probs - 0.3 * rollout.mask)
    for value_coef, kl_coef in ((0.0, 0.0), (0.25, 0.0), (0.25, 2.0)):
        weighted = settings.changed(value_coef=value_coef)
        targets = learning_targets(rollout, weighted, kl_coef)
        loss, numbers = minibatch_loss(
            setup.policy, rollout, targets, torch.arange(6), settings=weighted, decoding=setup.episodes.decoding
        )
        expected = numbers["policy_loss"] + value_coef * numbers["value_loss"] + kl_coef * numbers["kl_loss"]
        torch.testing.assert_close(loss, expected)
        assert numbers["kl_loss"].item() == pytest.approx(0.5 * 0.3**2, abs=1e-5)
        assert numbers["value_loss"] > 0.01


def test_frozen_layers_that_cannot_be_shared_are_user_errors(spec: Spec, deep_sft: Path) -> None:
    model, other = load_policy(deep_sft, COMPUTE).model, load_policy(deep_sft, COMPUTE).model
    with pytest.raises(UserError, match=r"ppo\.frozen_layers is 2 but the model has 2"):
        freeze_layers(model, 2)
    freeze_layers(model, 1)
    with torch.no_grad():
        decoder_layers(other)[1][0].mlp.c_fc.bias.add_(1)
    with pytest.raises(UserError, match=r"lower layers are not those of SFT"):
        share_frozen(model, other)


def test_a_policy_of_frozen_layers_can_be_gone_on_from_with_them(spec: Spec) -> None:
    first = train_ppo(spec("frozen")).folder
    went_on = train_ppo(replace(spec("frozen"), start=first, output=first.with_name("on")))
    assert went_on.curves["ratio_first"] == pytest.approx([1.0] * 10, abs=1e-4)
    whole = train_ppo(spec("separate")).folder
    with pytest.raises(UserError, match=r"set `ppo\.start: sft`"):
        prepare_ppo(replace(spec("frozen"), start=whole))


def test_the_value_of_a_text_so_far_is_at_first_its_score(spec: Spec, deep_reward: Path) -> None:
    policy, model = prepare_ppo(spec("separate")).policy, load_reward_model(deep_reward, COMPUTE).model
    assert isinstance(policy, PolicyWithValueModel)
    batch = PaddedBatch(IDS, torch.ones_like(IDS))
    values = response_values(policy.value_model, batch, 4)
    for t in range(4):
        prefix = IDS[:, : 2 + t]
        expected = score_tokens(model, PaddedBatch(prefix, torch.ones_like(prefix)))
        torch.testing.assert_close(values[:, t], expected, atol=1e-5, rtol=0)


def test_a_later_run_goes_on_with_the_value_model(spec: Spec) -> None:
    first = train_ppo(spec("separate")).folder
    before = prepare_ppo(spec("separate")).policy
    after = prepare_ppo(replace(spec("separate"), start=first)).policy
    assert isinstance(before, PolicyWithValueModel)
    assert isinstance(after, PolicyWithValueModel)
    batch = PaddedBatch(IDS, torch.ones_like(IDS))
    moved = response_values(after.value_model, batch, 4) - response_values(before.value_model, batch, 4)
    assert moved.abs().max() > 0.01


@pytest.mark.parametrize("mode", ["rloo", "group"])
def test_estimators_that_compare_responses_have_no_values(mode: str, spec: Spec) -> None:
    setup = prepare_ppo(spec(mode))
    assert type(setup.policy) is PpoPolicy
    curves = run_ppo(setup.policy, setup.episodes, spec(mode).settings.changed(updates=1), 0)
    assert not {"value_loss", "explained_variance"} & curves.keys()


def test_settings_that_do_not_go_together_are_refused() -> None:
    cases = {
        "not a multiple": {"batch_size": 10, "samples_per_prompt": 4},
        "samples_per_prompt to 2": {"advantages": "rloo"},
        "no use for `value: separate`": MODES["rloo"] | {"value": "separate"},
        "no use for `gamma: 0.9`": MODES["group"] | {"gamma": 0.9},
        "choose one": MODES["lora"] | {"frozen_layers": 1},
        "needs ppo.truncate_token": {"truncate_after": 3},
        "needs ppo.missing_end_penalty": {"missing_end": "subtract"},
        "needs ppo.validate_every": {"kl_budget": 3.0},
    }
    for problem, wrong in cases.items():
        with pytest.raises(UserError, match=problem):
            PpoSettings.parse(wrong, "loop.yaml")
