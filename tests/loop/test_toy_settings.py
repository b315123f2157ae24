"""A real model is not trained with a toy's settings that nobody chose."""

from pathlib import Path
from typing import Any

import pytest
from zoo.make import make_tiny

from rlhf_dagster.cli.train import train_stage
from rlhf_dagster.config import model_sizes
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings import base_model
from rlhf_dagster.loop.trainings.base_model import build_base_model
from rlhf_dagster.training.probe import base_model as probe
from rlhf_dagster.training.specs import silent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def everything_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "TOY_PARAMETERS", 1000)
    monkeypatch.setattr(model_sizes, "TOY_PARAMETERS", 1000)


def loop_on(model: Path, folder: Path, **settings: Any) -> LoopFolder:
    values = {"base_model": {"source": "folder", "name": str(model)}, **settings}
    return LoopFolder(LoopConfig.parse(values, "loop.yaml"), folder)


@pytest.mark.usefixtures("everything_is_real")
def test_it_is_refused_before_it_is_opened(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "load_base_model", None)
    with pytest.raises(UserError) as caught:
        build_base_model(loop_on(model, tmp_path, sft={"learning_rate": 1e-5}), tmp_path / "none", silent)
    said = str(caught.value)
    assert said.startswith(f"base_model {model} has 0.0")
    assert "set `preset: small` in loop.yaml, or set these yourself: sampling.prompt_tokens, " in said
    assert "sft.learning_rate" not in said
    assert said.endswith("reward_model.max_tokens, ppo.learning_rate.")


@pytest.mark.usefixtures("everything_is_real")
@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "small"},
        {
            "sampling": {"prompt_tokens": 8, "response_tokens": 8, "fixed_length": False},
            "sft": {"learning_rate": 5e-4, "max_tokens": 32},
            "reward_model": {"learning_rate": 1e-5, "max_tokens": 32},
            "ppo": {"learning_rate": 1e-6},
        },
    ],
)
def test_what_somebody_chose_is_taken(model: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    assert build_base_model(loop_on(model, tmp_path, **settings), tmp_path / "none", silent).metrics["parameters"]


def test_a_toy_has_a_toys_settings(model: Path, tmp_path: Path) -> None:
    assert build_base_model(loop_on(model, tmp_path), tmp_path / "none", silent).metrics["parameters"] < 1e6


@pytest.mark.usefixtures("everything_is_real")
def test_a_loop_that_has_begun_goes_on(model: Path, tmp_path: Path) -> None:
    loop = loop_on(model, tmp_path)
    loop.registry.register("sft-1", "models/sft-1", "sft", "", [], "0" * 64)
    loop.registry.set_initial("sft-1")
    assert build_base_model(loop, tmp_path / "none", silent).metrics["parameters"]


@pytest.mark.usefixtures("everything_is_real")
def test_a_spec_gives_what_is_the_toys(model: Path, tmp_path: Path) -> None:
    spec = tmp_path / "sft.yaml"
    spec.write_text(f"model: {model}\ndemonstrations: none\noutput: out\nsampling: {{fixed_length: false}}\n")
    with pytest.raises(UserError, match=r"for a toy of one million; give sampling\.prompt_tokens, ") as caught:
        train_stage("sft", spec)
    assert "settings.learning_rate, settings.max_tokens (docs/presets.md" in str(caught.value)
    assert "fixed_length" not in str(caught.value)
