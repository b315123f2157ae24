"""Log-probs and losses in pieces: the numbers and gradients of the plain computation, and never [B, T, V] in one."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy_language import COMPUTE, FIXED, Tables, dpo_spec, sft_spec
from transformers import PreTrainedModel
from zoo.make import tiny_model

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.evaluation.perplexity import document_losses
from rlhf_dagster.training.checkpoints.randomness import always_in_evaluation_mode
from rlhf_dagster.training.models.fast_layers import use_fast_layers
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.models.lora import add_lora
from rlhf_dagster.training.models.passes.logit_pieces import (
    head_runs_alone,
    limit_logits,
    log_probs_of,
    next_token_loss,
)
from rlhf_dagster.training.models.policies import load_policy, save_policy
from rlhf_dagster.training.models.reading import reading_of
from rlhf_dagster.training.models.windows import IGNORED, language_model_loss
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.specs import PpoSpec, silent
from rlhf_dagster.training.texts.tokens import PaddedBatch

BEHIND_THE_HEAD = ("gemma2", "cohere", "granite")
"""Architectures that cap or scale what the head gives."""
BELOW_THE_HEAD = ("bert", "opt")
"""Architectures with layers between trunk and head, or that narrow the states."""
ARCHITECTURES = ("gpt2", "llama", "mamba", *BEHIND_THE_HEAD, *BELOW_THE_HEAD)
DECODING = Decoding(0.7, max_tokens=5, fixed_length=False, pad_id=0, end_id=2, suppressed=(0, 3))
GENERATOR = torch.Generator().manual_seed(0)
IDS = torch.randint(4, 40, (3, 11), generator=GENERATOR)
BATCH = PaddedBatch(IDS, torch.tensor([[0] * 3 + [1] * 8, [1] * 11, [0] + [1] * 8 + [0] * 2]))
TOKENS, MASK = IDS[:, -5:], BATCH.attention_mask[:, -5:]
WEIGHTS = torch.randn(3, 5, generator=GENERATOR)
ROWS = 2**14


def pair(name: str) -> list[PreTrainedModel]:
    """The same model twice: logits in one piece, and in pieces of four positions."""
    whole = always_in_evaluation_mode(tiny_model(name))
    use_fast_layers(whole)
    reading_of(whole)
    pieces = copy.deepcopy(whole)
    limit_logits(pieces, 4 * 4 * pieces.config.vocab_size / 2**20)
    return [whole, pieces]


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def policy_loss(model: Any) -> Tensor:
    """Of log-probs, and of the states that values are read from."""
    log_probs, states = log_probs_of(model, BATCH, TOKENS, MASK, DECODING, hidden=True)
    return (log_probs * WEIGHTS).sum() + (states * WEIGHTS[..., None]).sum()


def sft_loss(model: Any) -> Tensor:
    return next_token_loss(model, IDS[:, 1:], MASK.bool().repeat(1, 2), input_ids=IDS[:, :-1])


def windows_loss(model: Any) -> Tensor:
    return language_model_loss(model, IDS.where(BATCH.attention_mask.flip(1) > 0, IGNORED))


LOSSES = {"policy": policy_loss, "sft": sft_loss, "windows": windows_loss}


class Positions(TorchDispatchMode):
    """The most positions whose logits are in one tensor: tensors as wide as the vocabulary, but for turned weights
    [32, V] and their gradients."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.most = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, Tensor) and tensor.shape[-1:] == (self.vocabulary,) and tensor.shape[-2:-1] != (32,):
                self.most = max(self.most, tensor.numel() // self.vocabulary)
        return output


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_one_piece(name: str, kind: str) -> None:
    whole, pieces = pair(name)
    assert head_runs_alone(pieces)
    expected, found = (LOSSES[kind](model) for model in (whole, pieces))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    right, ours = gradients(whole, expected), gradients(pieces, found)
    assert ours.keys() == right.keys()
    largest = max(float(gradient.abs().max()) for gradient in right.values())
    for weight, gradient in right.items():
        # The keys' bias has the rounding of 0 as its gradient.
        atol = 1e-5 * float(gradient.abs().max()) + 1e-6 * largest
        torch.testing.assert_close(ours[weight], gradient, rtol=1e-4, atol=atol, msg=weight)


@pytest.mark.parametrize("kind", LOSSES)
def test_no_more_logits_than_those_of_a_piece_stand_in_memory(kind: str) -> None:
    most = []
    for model in pair("llama"):
        with Positions(model.config.vocab_size) as seen:
            LOSSES[kind](model).backward()
        most.append(seen.most)
    assert most[0] >= 12
    assert most[1] == 4


def test_gradients_of_bfloat16_weights_are_summed_in_float32() -> None:
    """In bfloat16 a sum over many pieces would stand still once a piece is less than its last digit."""
    model = pair("llama")[0].bfloat16()
    limit_logits(model, 4 * model.config.vocab_size / 2**20)
    ids = IDS[:1, :2].repeat(1500, 1)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        found = []
        for rows in (1, 1500):
            loss = next_token_loss(model, ids[:rows, 1:], torch.ones(rows, 1).bool(), input_ids=ids[:rows, :1])
            found.append(gradients(model, loss * rows)["lm_head.weight"].float() / rows)
            model.zero_grad()
    torch.testing.assert_close(found[1], found[0], rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapters_and_a_frozen_head(precision: str) -> None:
    """Gradients reach the adapters, also where the head's weights are not trained, or are adapters themselves."""
    for targets in (["q_proj"], ["q_proj", "lm_head"]):
        whole, pieces = (add_lora(model, LoraSettings(targets=targets)) for model in pair("llama"))
        pieces.load_state_dict(whole.state_dict())
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            right, ours = (gradients(model, sft_loss(model)) for model in (whole, pieces))
        assert ours.keys() == right.keys() and all("lora" in name for name in ours)
        for name, gradient in right.items():
            tolerance = 1e-5 if precision == "fp32" else 0.02
            torch.testing.assert_close(
                ours[name], gradient, rtol=tolerance, atol=tolerance * float(gradient.abs().max()), msg=name
            )


def test_a_head_that_does_not_run_alone_is_not_cut(caplog: pytest.LogCaptureFixture) -> None:
    whole, pieces = pair("llama")

    class Mixed(nn.Linear):
        """Adds the mean over positions."""

        def forward(self, states: Tensor) -> Tensor:
            outputs = super().forward(states)
            return outputs + outputs.mean(dim=1, keepdim=True)

    for model in (whole, pieces):
        model.lm_head.__class__ = Mixed
    pieces.abilities = None
    assert not head_runs_alone(pieces)
    torch.testing.assert_close(sft_loss(pieces), sft_loss(whole), rtol=0, atol=0)
    assert "compute.logits_mib does not bound LlamaForCausalLM" in caplog.text


@pytest.fixture(scope="module")
def wide(sft: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with so many rows that a MiB of logits are 16 positions."""
    folder = tmp_path_factory.mktemp("wide")
    policy = load_policy(sft, COMPUTE)
    policy.model.resize_token_embeddings(ROWS)
    sample(policy, ["red"], FIXED, 0)
    save_policy(policy, None, folder)  # with what trials of whole rows have found, so that they are not run again
    return folder


def stage(name: str, wide: Path, tables: Tables, output: Path) -> Any:
    if name == "sft":
        return sft_spec(wide, tables, output)
    if name == "dpo":
        return replace(dpo_spec(wide, tables, output), sampling=FIXED.changed(batch_size=8))
    settings = PpoSettings(updates=2, batch_size=8, pretraining_coef=0.5, learning_rate=1e-3)
    spec = PpoSpec(wide, wide, None, tables.prompts, tables.text, output, settings, FIXED, compute=COMPUTE)
    return replace(spec, reward_function=f"{__file__}:by_length")


def by_length(prompts: list[str], responses: list[str]) -> list[float]:
    return [len(response) / 10 for response in responses]


@pytest.mark.parametrize("name", ["sft", "ppo", pytest.param("dpo", marks=pytest.mark.long)])
def test_stages_in_pieces_learn_the_same(name: str, wide: Path, tables: Tables, tmp_path: Path) -> None:
    results, most = [], []
    for mib in (256, 1):
        spec = stage(name, wide, tables, tmp_path / f"{mib}")
        with Positions(ROWS) as seen:
            spec = replace(spec, compute=spec.compute.changed(logits_mib=mib))
            results.append(train_here(name, spec, silent, KEEP_NOTHING))
        most.append(seen.most)
    assert most[0] > 16
    assert most[1] <= 16
    for curve, values in results[0].curves.items():
        assert results[1].curves[curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
    assert results[1].metrics == pytest.approx(results[0].metrics, rel=1e-3, abs=1e-4)


def test_measuring_in_pieces(wide: Path) -> None:
    texts, responses = ["red dog . good cat . " * 8], [[5, 6, 7] * 7]
    measures: list[Callable[[Any], Any]] = [
        lambda compute: document_losses(wide, texts, compute)[0].tolist(),
        lambda compute: response_log_probs(wide, ["red dog"], responses, FIXED, compute)[0],
    ]
    for measure in measures:
        found = []
        for mib in (256, 1):
            with Positions(ROWS) as seen:
                found.append(measure(COMPUTE.changed(logits_mib=mib)))
        assert seen.most <= 16
        assert found[1] == pytest.approx(found[0], rel=1e-5)
