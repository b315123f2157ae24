"""Models on one set of weights compute, train and save what models with weights of their own do."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_language import COMPUTE, FIXED, Tables, reward_spec, sft_spec
from transformers import AutoTokenizer, PreTrainedModel
from zoo.make import tiny_model

from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.training.models import shared_bases
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.models.shared_bases import SharedBases, shared_copy
from rlhf_dagster.training.ppo.opening.setup import PpoSetup, prepare_ppo
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import PpoSpec

NAMES = ("gpt2", "llama", "gemma2", "granite", "gpt_neox")
TRAINED = ("llama",)
"""The others are trained in the long run."""
STAY = LoraSettings(rank=2, merge=False)
SHORT = PpoSettings(updates=2, batch_size=8, minibatches=2, learning_rate=3e-3, lora=STAY, value="separate")
Prepare = Callable[[str], PpoSpec]


@pytest.fixture(scope="module")
def prepared(sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    """The spec of a PPO whose models are all adapters on one model of the zoo that speaks the toy language."""
    made: dict[str, PpoSpec] = {}

    def make(name: str) -> PpoSpec:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model, tokenizer = tiny_model(name), AutoTokenizer.from_pretrained(sft)
            model.config.pad_token_id, model.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
            model.save_pretrained(folder / "base")
            tokenizer.save_pretrained(folder / "base")
            made[name] = trained(folder, tables)
        return made[name]

    return make


def trained(folder: Path, tables: Tables) -> PpoSpec:
    spec = sft_spec(folder / "base", tables, folder / "sft")
    train_sft(replace(spec, settings=spec.settings.changed(lora=STAY, batch_size=32)))
    reward = reward_spec(folder / "sft", tables, folder / "reward")
    few = reward.settings.changed(lora=STAY, epochs=0.2, normalisation_samples=32)
    train_reward_model(replace(reward, settings=few))
    sft, scored, output = folder / "sft", folder / "reward", folder / "ppo"
    return PpoSpec(sft, sft, scored, tables.prompts, None, output, SHORT, FIXED, seed=1, compute=COMPUTE)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes every model have weights of its own, from now on."""

    def separate() -> None:
        monkeypatch.setattr(shared_bases, "shared_copy", copy.deepcopy)

    return separate


@pytest.mark.parametrize(
    "name", [name if name in TRAINED else pytest.param(name, marks=pytest.mark.long) for name in NAMES]
)
def test_ppo_on_one_base_is_ppo_on_four(
    name: str, prepared: Prepare, apart: Callable[[], None], tmp_path: Path
) -> None:
    spec = prepared(name)
    together, weights = train_ppo(replace(spec, output=tmp_path / "together")), elements(prepare_ppo(spec))
    apart()
    alone, separate = train_ppo(replace(spec, output=tmp_path / "alone")), elements(prepare_ppo(spec))
    assert weights < 0.5 * separate
    for curve, values in alone.curves.items():
        assert together.curves[curve] == pytest.approx(values, rel=1e-4, abs=1e-5), curve
    assert abs(together.curves["kl"][1]) > 1e-5
    ids = torch.tensor([[5, 6, 7, 8]])
    both = (load_policy(result.folder).model(ids).logits for result in (together, alone))
    torch.testing.assert_close(*both, atol=1e-5, rtol=1e-4)


def elements(prepared: PpoSetup) -> int:
    """Numbers in memory, of all models."""
    tensors = {id(tensor): tensor for model in models_of(prepared) for tensor in model.parameters()}
    return sum(tensor.numel() for tensor in tensors.values())


def models_of(prepared: PpoSetup) -> list[nn.Module]:
    scored = [cell.cell_contents for cell in getattr(prepared.episodes.score, "__closure__", ()) or ()]
    return [prepared.policy, prepared.episodes.reference, *(part for part in scored if isinstance(part, nn.Module))]


def test_gradients_reach_the_adapters_of_one_model_alone(prepared: Prepare) -> None:
    spec = prepared("llama")
    bases = SharedBases(COMPUTE)
    policy, reference = (load_policy(spec.sft, COMPUTE, bases).model for _ in range(2))
    assert (
        policy.model.layers[0].mlp.up_proj.base_layer.weight is reference.model.layers[0].mlp.up_proj.base_layer.weight
    )
    train_adapters(policy)
    policy(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    moved = [name for name, parameter in policy.named_parameters() if parameter.grad is not None]
    assert moved
    assert all(".lora_" in name for name in moved)
    assert all(parameter.grad is None for parameter in reference.parameters())


def train_adapters(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)


def test_a_copy_has_adapters_of_its_own(prepared: Prepare) -> None:
    model = load_policy(prepared("llama").sft, COMPUTE).model
    before = model(torch.tensor([[5, 6, 7]])).logits
    other = shared_copy(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    assert torch.equal(model(torch.tensor([[5, 6, 7]])).logits, before)
    assert not torch.allclose(other(torch.tensor([[5, 6, 7]])).logits, before)
