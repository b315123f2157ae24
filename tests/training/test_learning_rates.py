"""The learning rate of each step, in every stage."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_resume import StopAfter, assert_same
from toy_language import Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.schedule import PLAIN, ScheduleSettings
from rlhf_dagster.config.training import PpoSettings, SftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.learning_rates import rate_share
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, TrainingStopped, fingerprint
from rlhf_dagster.training.specs import silent
from rlhf_dagster.training.trainer import KeptTrainer

COSINE = ScheduleSettings(shape="cosine", warmup=2, final=0.1)


def shares(steps: int, schedule: ScheduleSettings) -> list[float]:
    return [rate_share(step, steps, schedule) for step in range(steps)]


def test_the_plain_schedule_is_that_of_version_0_1_to_the_last_digit() -> None:
    for steps in (1, 7, 90, 1953):
        assert shares(steps, PLAIN) == [1 - step / steps for step in range(steps)]


def test_a_warm_up_over_ten_steps_begins_with_a_tenth() -> None:
    constant = ScheduleSettings(shape="constant", warmup=10)
    assert shares(12, constant) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1])


def test_a_cosine_falls_to_its_end() -> None:
    assert shares(6, COSINE) == pytest.approx([0.5, 1, 1, 0.86820, 0.55, 0.23180], abs=1e-5)
    assert rate_share(6, 6, COSINE) == pytest.approx(0.1)


def test_a_line_falls_to_its_end() -> None:
    assert shares(4, ScheduleSettings(final=0.5)) == [1.0, 0.875, 0.75, 0.625]


def test_a_share_of_the_steps_is_rounded_down() -> None:
    assert [ScheduleSettings(warmup=0.1).warmup_steps(steps) for steps in (1, 9, 10, 29)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shape": "constant", "final": 0.1}, "does not fall"),
        ({"warmup": 10.5}, "a number of steps, or a share"),
        ({"shape": "square"}, "`schedule.shape`"),
    ],
)
def test_what_is_no_schedule_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SftSettings.parse({"schedule": values}, "loop.yaml")


def test_a_warm_up_as_long_as_ppo_is_refused_before_it_starts() -> None:
    with pytest.raises(UserError, match=r"ppo\.schedule\.warmup is 90 steps, and the whole training has 90"):
        PpoSettings.parse({"schedule": {"warmup": 90}}, "loop.yaml")


@pytest.fixture
def specs(base: Path, sft: Path, tables: Tables, tmp_path: Path) -> dict[str, Any]:
    return {
        "sft": sft_spec(base, tables, tmp_path / "sft"),
        "reward_model": reward_spec(sft, tables, tmp_path / "reward"),
        "dpo": dpo_spec(sft, tables, tmp_path / "dpo"),
    }


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rates with which the Trainer's steps are made."""
    seen: list[float] = []
    step: Callable[..., Any] = KeptTrainer.training_step

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(KeptTrainer, "training_step", watched)
    return seen


def scheduled(spec: Any, schedule: ScheduleSettings) -> Any:
    return replace(spec, settings=spec.settings.changed(epochs=1, batch_size=20, schedule=schedule))


@pytest.mark.parametrize("stage", ["sft", "reward_model", "dpo"])
@pytest.mark.parametrize("schedule", [PLAIN, COSINE])
def test_each_step_of_a_stage_has_its_share(
    stage: str, schedule: ScheduleSettings, specs: dict[str, Any], rates: list[float]
) -> None:
    spec = scheduled(specs[stage], schedule)
    train_here(stage, spec, silent, KEEP_NOTHING)
    expected = [spec.settings.learning_rate * share for share in shares(len(rates), schedule)]
    assert len(rates) > 2
    assert rates == pytest.approx(expected)


def test_a_schedule_goes_on_where_a_training_was_stopped(
    specs: dict[str, Any], rates: list[float], tmp_path: Path
) -> None:
    spec = scheduled(specs["sft"], COSINE)
    whole = train_here("sft", replace(spec, output=tmp_path / "whole"), silent, KEEP_NOTHING)
    state, alone = tmp_path / "state", list(rates)
    with pytest.raises(TrainingStopped):
        train_here("sft", spec, silent, Checkpointing(state, 3600, StopAfter(2)))
    assert_same(train_here("sft", spec, silent, Checkpointing(state, 3600)), whole)
    assert rates == alone * 2


def test_a_stage_that_ends_in_its_warm_up_is_refused(specs: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"sft\.schedule\.warmup is 500 steps, and the whole training has 4"):
        train_here("sft", scheduled(specs["sft"], ScheduleSettings(warmup=500)), silent, KEEP_NOTHING)


def test_a_training_of_version_0_1_has_the_fingerprint_that_it_had(specs: dict[str, Any]) -> None:
    assert "schedule" not in str(specs["sft"].settings)
    with_schedule = replace(specs["sft"], settings=specs["sft"].settings.changed(schedule=COSINE))
    assert fingerprint(with_schedule) != fingerprint(specs["sft"])
