"""Rollouts drawn one update ahead: which policy each number is of, and that it does not matter who draws them when."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_modes import LORA, SHORT
from torch import Tensor
from toy_language import COMPUTE, VARIABLE, Tables
from transformers import PreTrainedModel

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.log_probs import Decoding
from rlhf_dagster.training.ppo import train as ppo
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.policy import PpoPolicy
from rlhf_dagster.training.ppo.rollout import Rollout, Targets
from rlhf_dagster.training.ppo.train import run_ppo
from rlhf_dagster.training.ppo.update import minibatch_loss
from rlhf_dagster.training.sampling.backend import OutsideBackend, Responses
from rlhf_dagster.training.sampling.native import generate
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.tokens import PaddedBatch

AHEAD = SHORT.changed(rollouts_ahead=1)


class Fixed(PpoPolicy):
    """Gives its tokens the same probabilities whatever they are."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__(torch.nn.Identity())  # type: ignore[arg-type]
        self.fixed = torch.tensor([probabilities]).log()

    def log_probs(self, *_: Any, **__: Any) -> Tensor:
        return self.fixed


def of(probabilities: list[float]) -> Tensor:
    return torch.tensor([probabilities]).log()


@pytest.mark.parametrize(
    ("sampler", "weights"),
    # Another program that gave these probabilities to the same policy's tokens: 0.5 / 0.4 and 0.2 / 0.4.
    [(None, (1.0, 1.0)), ([0.4, 0.4], (1.25, 0.5))],
)
def test_ratios_are_to_the_policy_that_sampled(sampler: list[float] | None, weights: tuple[float, float]) -> None:
    """The policy that sampled gave two tokens 0.5 and 0.2, and SFT 0.25 and 0.2. The policy that is trained, an update
    later, gives them 0.6 and 0.3."""
    ids = torch.zeros(1, 3, dtype=torch.long)
    rollout = Rollout(
        batch=PaddedBatch(ids, torch.ones_like(ids)),
        tokens=ids[:, 1:],
        mask=torch.ones(1, 2),
        log_probs=of([0.5, 0.2]),
        reference_log_probs=of([0.25, 0.2]),
        values=None,
        scores=torch.zeros(1),
        sampler_log_probs=None if sampler is None else of(sampler),
    )
    settings = AHEAD.changed(kl_penalty="k2", clip_range=0.3)
    targets, decoding = Targets(torch.tensor([[1.0, 2.0]]), None, 0.5), Decoding(1.0, 2, True, 0, -1, ())
    loss, numbers = minibatch_loss(
        Fixed([0.6, 0.3]), rollout, targets, torch.arange(1), settings=settings, decoding=decoding
    )
    # Ratios 0.6 / 0.5 = 1.2 and 0.3 / 0.2 = 1.5, the second cut at 1.3.
    policy_loss = -(1.2 * 1.0 * weights[0] + 1.3 * 2.0 * weights[1]) / 2
    # k2 is half the squared log-ratio to SFT, weighted by the ratio to the policy that sampled, which is not cut.
    kl = (1.2 * math.log(0.6 / 0.25) ** 2 / 2 * weights[0] + 1.5 * math.log(0.3 / 0.2) ** 2 / 2 * weights[1]) / 2
    assert numbers["policy_loss"].item() == pytest.approx(policy_loss, rel=1e-5)
    assert numbers["kl_loss"].item() == pytest.approx(kl, rel=1e-5)
    assert loss.item() == pytest.approx(policy_loss + 0.5 * kl, rel=1e-5)
    assert numbers["ratio"].item() == pytest.approx(1.5, rel=1e-5)
    assert numbers["clip_fraction"].item() == 0.5


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> PpoSpec:
    paths = (deep_sft, deep_sft, deep_reward, tables.prompts, tables.text, tmp_path / "ppo")
    return PpoSpec(*paths, AHEAD, VARIABLE, seed=1, compute=COMPUTE)


def trained(spec: PpoSpec, backend: Any = None, settings: PpoSettings | None = None) -> dict[str, list[float]]:
    """The curves of a training, by the backend of this package or another."""
    setup = prepare_ppo(spec)
    episodes = setup.episodes if backend is None else replace(setup.episodes, backend=backend)
    return run_ppo(setup.policy, episodes, settings or spec.settings, 1, controller=setup.controller)


@pytest.mark.parametrize("ahead", [0, 1])
def test_an_update_s_numbers_are_of_the_policy_before_it_or_one_update_earlier(
    ahead: int, spec: PpoSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies: list[PpoPolicy] = []
    sampled_by: list[list[int]] = []
    optimise = ppo.optimise

    def watched(policy: PpoPolicy, optimizer: Any, rollout: Rollout, *rest: Any, **more: Any) -> Any:
        policies.append(copy.deepcopy(policy).eval())
        read = rollout.batch, rollout.tokens, rollout.mask, more["decoding"]
        with torch.no_grad():
            outputs = [each(*read) for each in policies]
        sampled_by.append(
            [
                number
                for number, (log_probs, values) in enumerate(outputs)
                if torch.allclose(log_probs, rollout.log_probs, atol=1e-5)
                and torch.allclose(values * rollout.mask, rollout.values, atol=1e-5)
            ]
        )
        return optimise(policy, optimizer, rollout, *rest, **more)

    monkeypatch.setattr(ppo, "optimise", watched)
    curves = trained(spec, settings=spec.settings.changed(rollouts_ahead=ahead))
    assert sampled_by == ([[0], [0], [1], [2]] if ahead else [[0], [1], [2], [3]])
    assert curves["kl"][0] == pytest.approx(0, abs=1e-5)
    assert (abs(curves["kl"][1]) < 1e-5) == bool(ahead)


class Foreign:
    """Another program in this process, whose arithmetic happens to be the trainer's."""

    own_arithmetic = False

    def __init__(self, off: float = 0.0) -> None:
        self.off, self.calls = off, 0

    def generate(
        self,
        model: PreTrainedModel,
        prompts: PaddedBatch,
        uniforms: Tensor | None,
        decoding: Decoding,
        value_head: torch.nn.Module | None = None,
    ) -> Responses:
        self.calls += 1
        drawn = generate(model, prompts, uniforms, decoding)
        return Responses(drawn.tokens, drawn.mask, (drawn.log_probs - self.off) * drawn.mask, None)

    def close(self) -> None: ...


class Late(Foreign):
    """Draws as late as it may, when it is asked for the responses, from a copy of the weights that it was given."""

    def begin(
        self, model: PreTrainedModel, prompts: PaddedBatch, uniforms: Tensor | None, decoding: Decoding
    ) -> Callable[[], Responses]:
        given = copy.deepcopy(model)
        return lambda: self.generate(given, prompts, uniforms, decoding)


@pytest.mark.parametrize("changes", [{}, {"lora": LORA}, {"value": "separate"}, {"frozen_layers": 1}])
def test_it_is_the_same_training_when_the_sampler_is_done_after_the_update(
    changes: dict[str, Any], spec: PpoSpec
) -> None:
    spec = replace(spec, settings=AHEAD.changed(**changes))
    early, late = Foreign(), Late()
    assert not isinstance(early, OutsideBackend)
    assert isinstance(late, OutsideBackend)
    curves = trained(spec, late)
    assert curves == trained(spec, early)
    assert max(curves["sampler_kl"]) < 1e-6
    assert early.calls == late.calls == AHEAD.updates


def test_a_sampler_of_another_model_is_refused_ahead_too(spec: PpoSpec) -> None:
    with pytest.raises(UserError, match="nats a token from the policy's"):
        trained(spec, Late(off=2.0))


def test_more_than_one_update_ahead_is_refused() -> None:
    with pytest.raises(UserError, match="rollouts_ahead"):
        PpoSettings.parse({"rollouts_ahead": 2}, "ppo")
