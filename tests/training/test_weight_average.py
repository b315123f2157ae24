"""PPO's checkpoint as an average of weights, and its pretraining examples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_modes import spec_of
from safetensors.torch import load_file
from torch import Tensor
from toy_language import Tables

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.ppo import train, update
from rlhf_dagster.training.ppo.alarms import mostly_start
from rlhf_dagster.training.ppo.opening.setup import PpoSetup, prepare_ppo
from rlhf_dagster.training.ppo.policy import VALUE_HEAD_FILE
from rlhf_dagster.training.ppo.state import PpoRun
from rlhf_dagster.training.ppo.train import run_ppo, train_ppo
from rlhf_dagster.training.runtime.weight_average import WeightAverage
from rlhf_dagster.training.specs import PpoSpec


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> PpoSpec:
    return spec_of("averaged", deep_sft, deep_reward, tables, tmp_path / "ppo")


@pytest.fixture
def after_updates(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The trained weights after each update."""
    seen: list[dict[str, Tensor]] = []
    real = PpoRun.average_weights

    def watched(self: PpoRun) -> None:
        seen.append({name: weight.clone() for name, weight in self.weights().items()})
        real(self)

    monkeypatch.setattr(PpoRun, "average_weights", watched)
    return seen


def ran(spec: PpoSpec) -> tuple[PpoSetup, dict[str, Tensor], dict[str, list[float]]]:
    """A run of a spec, the weights that it began with, and its curves."""
    setup = prepare_ppo(spec)
    start = {name: weight.detach().clone() for name, weight in setup.policy.trained().items()}
    return setup, start, run_ppo(setup.policy, setup.episodes, spec.settings, spec.seed)


def test_the_checkpoint_is_the_average_after_the_last_update(
    spec: PpoSpec, after_updates: list[dict[str, Tensor]]
) -> None:
    setup, start, _ = ran(spec)
    for name, weight in setup.policy.trained().items():
        expected = start[name] / 16 + sum(after[name] / 2 ** (4 - i) for i, after in enumerate(after_updates))
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=1e-5)
        assert not torch.equal(weight.detach(), after_updates[-1][name])


def test_training_itself_is_what_it_is_without_an_average(
    spec: PpoSpec, after_updates: list[dict[str, Tensor]]
) -> None:
    _, _, averaged = ran(spec)
    _, _, plain = ran(replace(spec, settings=spec.settings.changed(ema_decay=None)))
    assert averaged["reward"] == plain["reward"]
    assert averaged["policy_loss"] == plain["policy_loss"]
    for one, other in zip(after_updates[:4], after_updates[4:], strict=True):
        assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_validation_measures_the_average(spec: PpoSpec) -> None:
    setup, _, averaged = ran(spec)
    _, _, plain = ran(replace(spec, settings=spec.settings.changed(ema_decay=None)))
    assert averaged["validation_kl"][0] == plain["validation_kl"][0]
    assert averaged["validation_kl"][-1] != plain["validation_kl"][-1]
    measured = train.validate(setup.policy, setup.episodes, spec.settings, spec.seed)
    assert measured["validation_kl"] == averaged["validation_kl"][-1]


def test_the_average_is_saved_with_its_value_head(spec: PpoSpec, deep_sft: Path) -> None:
    plain = train_ppo(
        replace(spec, output=spec.output.with_name("plain"), settings=spec.settings.changed(ema_decay=None))
    )
    averaged = train_ppo(spec)
    for file in ("model.safetensors", VALUE_HEAD_FILE):
        one, other = load_file(plain.folder / file), load_file(averaged.folder / file)
        assert any(not torch.equal(weight, other[name]) for name, weight in one.items()), file


def test_bfloat16_weights_have_an_average_in_float32() -> None:
    weights = {"w": torch.ones(4, dtype=torch.bfloat16)}
    average = WeightAverage(0.999, weights)
    for _ in range(2000):
        average.add({"w": torch.full((4,), 1.0078125, dtype=torch.bfloat16)})
    # What one update adds is far below bfloat16's last digit at 1, which is 1 / 128.
    torch.testing.assert_close(average.weights["w"], torch.full((4,), 1 + (1 - 0.999**2000) / 128))
    assert average.like(weights)["w"].dtype == torch.bfloat16


def test_an_average_that_is_mostly_the_start_is_said() -> None:
    said = mostly_start(0.992, 90)
    assert said.startswith("The checkpoint's average holds 49% of the weights that training started from")
    assert mostly_start(0.992, 500) == mostly_start(None, 1) == ""


def test_pretraining_examples_need_a_coefficient() -> None:
    with pytest.raises(UserError, match=r"`ppo.pretraining_examples` needs ppo.pretraining_coef"):
        PpoSettings.parse({"pretraining_examples": 8}, "loop.yaml")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_eight_examples_for_an_episode_have_the_gradient_of_one_pass_over_all(
    accumulate: int, spec: PpoSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"pretraining_coef": 0.5, "pretraining_examples": 8, "accumulate": accumulate, "updates": 1}
    spec = replace(spec, settings=spec.settings.changed(**changes, schedule={}, epochs=1, minibatches=1))
    gradients: list[dict[str, Any]] = []
    sizes: list[int] = []
    own_gradient, loss = update._own_gradient, update.language_model_loss

    def watched(policy: Any, rollout: Any, targets: Any, rows: Tensor, windows: Tensor, **kwargs: Any) -> Any:
        numbers = own_gradient(policy, rollout, targets, rows, windows, **kwargs)
        found = {name: weight.grad.clone() for name, weight in policy.trained().items()}
        policy.zero_grad(set_to_none=True)
        own_gradient(policy, rollout, targets, rows, None, **kwargs)
        whole = loss(policy.model, windows)
        (0.5 * whole).backward()
        gradients.append({name: (found[name], weight.grad) for name, weight in policy.trained().items()})
        assert len(windows) == 8 * len(rows)
        torch.testing.assert_close(numbers["pretraining_loss"], whole.detach())
        return numbers

    def sized(model: Any, windows: Tensor) -> Tensor:
        sizes.append(len(windows))
        return loss(model, windows)

    monkeypatch.setattr(update, "_own_gradient", watched)
    monkeypatch.setattr(update, "language_model_loss", sized)
    ran(spec)
    (pairs,) = gradients
    for found, expected in pairs.values():
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    # No pass reads more windows than it has episodes.
    assert max(sizes) <= -(-16 // accumulate)
    assert sum(sizes) == 8 * 16
