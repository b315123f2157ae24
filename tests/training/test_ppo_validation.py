"""The weights that validation keeps, and when it ends a training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from ppo_modes import spec_of
from toy_language import Tables, prompt_row, write
from transformers import AutoModelForCausalLM

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.schemas import PROMPTS
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.train import run_ppo, train_ppo
from rlhf_dagster.training.ppo.validation import (
    best_validation,
    gone_too_far,
    is_due,
    kept_update,
    validate,
    validated_after,
)
from rlhf_dagster.training.specs import PpoSpec

WATCHED = PpoSettings(validate_every=2, patience=2, kl_budget=5.0)


@pytest.fixture
def spec(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> PpoSpec:
    return spec_of("validated", deep_sft, deep_reward, tables, tmp_path / "ppo")


@pytest.mark.parametrize(
    ("scores", "kls", "best"),
    [
        ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], 2),
        ([0.0, 1.0, 2.0], [0.0, 1.0, 5.1], 1),
        ([0.0, 1.0, 1.0], [0.0, 1.0, 2.0], 1),
        ([0.0, -1.0, -2.0], [0.0, 1.0, 2.0], 0),
        ([3.0, 4.0, 5.0], [9.0, 7.0, 8.0], 1),
    ],
)
def test_the_best_score_within_the_budget_is_kept(scores: list[float], kls: list[float], best: int) -> None:
    curves = {"validation_reward": scores, "validation_kl": kls, "reward": [0.0] * 4}
    assert best_validation(curves, 5.0) == best
    assert kept_update(curves, WATCHED) == 2 * best
    assert kept_update(curves, WATCHED.changed(kl_budget=None)) == 4


@pytest.mark.parametrize(
    ("scores", "rewards", "ended"),
    [
        ([0.0, 3.0, 2.0, 1.0], [0, 1, 2, 3, 4, 5], True),
        ([0.0, 3.0, 2.0, 2.0], [0, 1, 2, 3, 4, 5], False),
        ([0.0, 1.0, 2.0, 1.0], [0, 1, 2, 3, 4, 5], False),
        ([0.0, 3.0, 2.0, 1.0], [0, 1, 2, 3, 1, 0], False),
        ([3.0, 2.0, 1.0], [0, 1, 2, 3], True),
        ([3.0, 2.0], [0, 1], False),
    ],
)
def test_training_ends_where_the_held_out_score_falls_while_the_training_reward_rises(
    scores: list[float], rewards: list[float], ended: bool
) -> None:
    curves = {"validation_reward": scores, "reward": rewards}
    assert ("over-optimises" in gone_too_far(curves, WATCHED)) == ended
    assert gone_too_far(curves, WATCHED.changed(patience=None)) == ""


def test_validations_are_at_the_start_every_so_often_and_at_the_end() -> None:
    settings = PpoSettings(updates=5, validate_every=2)
    due = [update for update in range(6) if is_due(update, settings)]
    assert due == [validated_after(index, settings) for index in range(4)] == [0, 2, 4, 5]
    assert not any(is_due(update, PpoSettings(updates=5)) for update in range(6))


def test_training_ends_where_an_ensemble_disagrees() -> None:
    curves = {"validation_reward": [0.0], "reward": [1.0], "validation_spread": [0.6]}
    assert "deviate by 0.60" in gone_too_far(curves, WATCHED.changed(spread_limit=0.5))
    assert gone_too_far(curves, WATCHED.changed(spread_limit=0.7)) == ""


@pytest.mark.parametrize(("budget", "kept"), [(1e-6, {0}), (2.0, {1, 2, 3, 4, 5}), (None, {6})])
def test_the_weights_kept_are_those_that_were_validated(spec: PpoSpec, budget: float | None, kept: set[int]) -> None:
    settings = spec.settings.changed(updates=6, validate_every=1, kl_budget=budget, learning_rate=1e-2)
    setup, snapshots = prepare_ppo(replace(spec, settings=settings)), {}
    parameters = dict(setup.policy.named_parameters())

    def keep(step: int, total: int, **numbers: float) -> None:
        snapshots[step] = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    keep(0, 6)
    curves = run_ppo(setup.policy, setup.episodes, settings, 0, keep)
    update = kept_update(curves, settings)
    assert update in kept
    assert all(torch.equal(parameters[name], weight) for name, weight in snapshots[update].items())
    assert len(curves["validation_reward"]) == 7


def test_metrics_are_those_of_the_weights_kept(spec: PpoSpec, deep_sft: Path) -> None:
    result = train_ppo(replace(spec, settings=spec.settings.changed(kl_budget=1e-6)))
    assert len(result.curves["validation_reward"]) == 3
    assert result.metrics["kept_update"] == 0
    assert result.metrics["validation_reward"] == result.curves["validation_reward"][0]
    assert result.metrics["reward"] == result.curves["reward"][0]
    assert any("is the one that training started from" in warning for warning in result.warnings)
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (result.folder, deep_sft)]
    assert all(torch.equal(*pair) for pair in zip(*(model.parameters() for model in models), strict=True))


def test_validation_reads_held_out_prompts_and_changes_nothing(spec: PpoSpec, tables: Tables) -> None:
    rows = pq.read_table(tables.prompts).to_pandas()
    held_out = set(rows.loc[rows["split"] == "validation", "text"])
    setup = prepare_ppo(spec)
    assert len(setup.episodes.held_out) == 7
    assert set(setup.episodes.held_out_texts) <= held_out
    assert not held_out & set(setup.episodes.texts)
    first, again = (validate(setup.policy, setup.episodes, spec.settings, 5) for _ in range(2))
    assert first == again
    assert first["validation_kl"] == pytest.approx(0, abs=1e-4)
    # Batches change the numbers through rounding only: 7 prompts at once, or 4 and 3.
    small = validate(setup.policy, setup.episodes, spec.settings.changed(batch_size=8, minibatches=1), 5)
    assert small == pytest.approx(first, abs=1e-5)
    unwatched = replace(spec, settings=spec.settings.changed(validate_every=None, kl_budget=None))
    watched = replace(spec, settings=spec.settings.changed(kl_budget=None))
    assert train_ppo(watched).curves["kl"] == train_ppo(unwatched).curves["kl"]


def test_without_held_out_prompts_there_is_no_validation(spec: PpoSpec, tmp_path: Path) -> None:
    prompts = write(tmp_path, "train", [prompt_row(i, text) for i, text in enumerate(["red", "dog"])], PROMPTS)
    with pytest.raises(UserError, match="no row of split 'validation'"):
        prepare_ppo(replace(spec, prompts=prompts))


def test_an_over_optimised_training_ends(spec: PpoSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    falling: Callable[..., dict[str, float]] = lambda *_: {  # noqa: E731
        "validation_reward": float(-next(counter)),
        "validation_kl": 0.0,
        "validation_length": 5.0,
    }
    counter = iter(range(100))
    monkeypatch.setattr("rlhf_dagster.training.ppo.train.validate", falling)
    settings = spec.settings.changed(updates=30, validate_every=2, patience=2, learning_rate=1e-2, kl_coef=0.01)
    result = train_ppo(replace(spec, settings=settings))
    assert 4 <= len(result.curves["reward"]) < 30
    assert any("over-optimises the reward" in warning for warning in result.warnings)
    assert result.metrics["kept_update"] == 0
