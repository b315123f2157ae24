"""What an arm's borrowed training says, in the names of the arm's own settings."""

from pathlib import Path

import pytest

from rlhf_dagster.compute.work import Trained, TrainingFailed
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.trainings.own_names import OwnNames
from rlhf_dagster.training.specs import TrainingResult

RLOO = OwnNames("ppo", "rloo", PpoSettings.model_fields)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("PPO diverged; lower ppo.learning_rate.", "PPO diverged; lower rloo.learning_rate."),
        ("set `ppo.lora.merge: false`, or ppo.start.", "set `rloo.lora.merge: false`, or rloo.start."),
        ("in rlhf_dagster.training.ppo.update, ppo.train", "in rlhf_dagster.training.ppo.update, ppo.train"),
        ("raise sampling.response_tokens", "raise sampling.response_tokens"),
    ],
)
def test_settings_are_named_and_modules_stay(said: str, meant: str) -> None:
    assert RLOO.in_text(said) == meant


@pytest.mark.parametrize("kind", [UserError, TrainingFailed])
def test_errors_and_warnings_are_said_in_them(kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"lower rloo\.minibatches"), RLOO.in_errors():
        raise kind("lower ppo.minibatches")
    result = TrainingResult(Path("x"), {}, {}, ["with ppo.ema_decay 0.9"])
    assert RLOO.in_warnings(Trained(result)).result.warnings == ["with rloo.ema_decay 0.9"]
