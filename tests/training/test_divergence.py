"""A training that diverges ends with a sentence, and leaves no model."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_language import COMPUTE, FIXED, TINY, Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.divergence import require_finite_loss, require_finite_weights
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import PpoSpec, TinyModelSpec


@pytest.mark.parametrize("stage", ["tiny_model", "sft", "reward_model", "dpo", "ppo"])
def test_a_learning_rate_beyond_all_reason(
    stage: str, base: Path, sft: Path, deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path
) -> None:
    ppo = PpoSpec(
        deep_sft,
        deep_sft,
        deep_reward,
        tables.prompts,
        None,
        tmp_path / "x",
        PpoSettings(updates=3),
        FIXED,
        compute=COMPUTE,
    )
    made: dict[str, Any] = {
        "tiny_model": TinyModelSpec(tables.text, tmp_path / "x", TINY.changed(steps=5), COMPUTE),
        "sft": sft_spec(base, tables, tmp_path / "x"),
        "reward_model": reward_spec(sft, tables, tmp_path / "x"),
        "dpo": dpo_spec(sft, tables, tmp_path / "x"),
        "ppo": ppo,
    }
    spec = replace(made[stage], settings=made[stage].settings.changed(learning_rate=1e30))
    with pytest.raises(UserError, match=r"diverged.+lower (the|ppo\.)"):
        train_here(stage, spec, lambda *_, **__: None, KEEP_NOTHING)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_the_step_is_named(loss: float) -> None:
    with pytest.raises(UserError, match=f"the loss of step 7 is {loss}"):
        require_finite_loss(loss, 7)


def test_the_weight_is_named() -> None:
    layer = torch.nn.Linear(2, 1)
    require_finite_weights(layer)
    torch.nn.init.constant_(layer.bias, math.nan)
    with pytest.raises(UserError, match="bias is not finite"):
        require_finite_weights(layer)
