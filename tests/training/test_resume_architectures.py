"""SFT, reward model, DPO and PPO go on bit for bit, however an architecture holds and saves its weights."""

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from architectures import TWELVE, save_tiny
from toy_language import (
    COMPUTE,
    FIXED,
    Tables,
    demonstration_row,
    dpo_spec,
    preference_row,
    prompt_row,
    reward_spec,
    sentence,
    sft_spec,
    text_row,
    write,
)
from transformers import AutoTokenizer, Trainer

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.specs import PpoSpec, TrainingResult
from rlhf_dagster.training.trainer import KeptTrainer

LORA = LoraSettings(rank=2)
PPO = PpoSettings(updates=3, batch_size=8, learning_rate=1e-2)
QUICK = {
    ("sft", "mixtral"),
    ("sft", "gpt_neox"),
    ("reward_model", "qwen3_moe"),
    ("dpo", "gemma"),
    ("ppo", "deepseek_v3"),
}
STAGES = ("sft", "reward_model", "dpo", "ppo")
Base = Callable[[str], Path]


def cases(*found: tuple[str, str]) -> list[Any]:
    """Stages of architectures; those that take long together are marked."""
    return [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.long]) for case in found]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Tables for three or four steps."""
    folder, rng = tmp_path_factory.mktemp("few"), random.Random(0)
    texts = [sentence(rng, rng.randint(2, 6)) for _ in range(14)]
    compared = [preference_row(i, text, [sentence(rng, 5) for _ in range(2 + i % 2)]) for i, text in enumerate(texts)]
    shown = [demonstration_row(i, text, sentence(rng, 5)) for i, text in enumerate(texts)]
    return Tables(
        text=write(folder, "text", [text_row(i, sentence(rng, 20)) for i in range(8)], PRETRAINING_TEXT),
        prompts=write(folder, "prompts", [prompt_row(i, text) for i, text in enumerate(texts)], PROMPTS),
        demonstrations=write(folder, "demonstrations", shown, DEMONSTRATIONS),
        preferences=write(folder, "preferences", compared, PREFERENCES),
    )


@pytest.fixture(scope="module")
def of(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base model of an architecture, with the toy language's tokenizer."""
    folder, tokenizer = tmp_path_factory.mktemp("architectures"), AutoTokenizer.from_pretrained(base)
    return lambda name: folder / name if (folder / name).exists() else save_tiny(name, tokenizer, folder / name)


def spec_of(stage: str, model: Path, tables: Tables, output: Path, **changes: Any) -> Any:
    if stage == "ppo":
        settings = PPO.changed(**changes)
        spec = PpoSpec(model, model, None, tables.prompts, tables.text, output, settings, FIXED, 1, compute=COMPUTE)
        return replace(spec, reward_function="ppo_modes:good")
    make = {"sft": sft_spec, "reward_model": reward_spec, "dpo": dpo_spec}[stage]
    spec = make(model, tables, output)
    changes |= {"normalisation_samples": 16} if stage == "reward_model" else {}
    return replace(spec, settings=spec.settings.changed(epochs=1, batch_size=4, learning_rate=1e-2, **changes))


class After:
    """A stop cord that is pulled after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> str:
        self.left -= 1
        return "that is enough" if self.left == 0 else ""


def train(stage: str, spec: Any, state: Path | None = None, steps: list[int] | None = None) -> TrainingResult:
    seen = [] if steps is None else steps
    return train_here(stage, spec, lambda step, *_, **__: seen.append(step), Checkpointing(state, 3600))


def stop(stage: str, spec: Any, state: Path, after: int = 2) -> None:
    with pytest.raises(TrainingStopped):
        train_here(stage, spec, lambda *_, **__: None, Checkpointing(state, 3600, After(after)))


def require_the_same_after_a_stop(stage: str, spec: Any, folder: Path) -> None:
    whole = train(stage, replace(spec, output=folder / "whole"))
    steps: list[int] = []
    stop(stage, spec, folder / "state")
    result = train(stage, spec, folder / "state", steps)
    assert steps[0] == 3
    assert result.curves == whole.curves
    assert result.metrics == whole.metrics
    assert folder_digest(result.folder) == folder_digest(whole.folder)


@pytest.mark.parametrize(("stage", "name"), cases(*((stage, name) for name in TWELVE for stage in STAGES)))
def test_a_training_goes_on_bit_for_bit(stage: str, name: str, of: Base, few: Tables, tmp_path: Path) -> None:
    require_the_same_after_a_stop(stage, spec_of(stage, of(name), few, tmp_path / "output"), tmp_path)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("dpo", "gpt2"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (("sft", "gpt2"), ("sft", "mixtral"), ("sft", "zamba"), ("dpo", "mixtral"), ("dpo", "zamba"))
        ),
    ],
)
def test_adapters_go_on_bit_for_bit(stage: str, name: str, of: Base, few: Tables, tmp_path: Path) -> None:
    spec = spec_of(stage, of(name), few, tmp_path / "output", lora=LORA)
    require_the_same_after_a_stop(stage, spec, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["mixtral", "llama", "gpt_neox"])
@pytest.mark.parametrize("changes", [{}, {"lora": LORA}], ids=["all", "lora"])
def test_a_value_model_of_its_own_goes_on_bit_for_bit(
    name: str, changes: dict[str, Any], of: Base, few: Tables, tmp_path: Path
) -> None:
    model = of(name)
    reward = train("reward_model", spec_of("reward_model", model, few, tmp_path / "reward")).folder
    spec = spec_of("ppo", model, few, tmp_path / "output", value="separate", **changes)
    require_the_same_after_a_stop("ppo", replace(spec, reward_model=reward, reward_function=None), tmp_path)


def as_version_0_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """States as that release wrote them, with `save_pretrained`."""
    monkeypatch.setattr(KeptTrainer, "_save", Trainer._save)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        pytest.param({}, "gpt2", id="all-gpt2"),
        pytest.param({"lora": LORA}, "gemma", id="lora-gemma", marks=pytest.mark.long),
        pytest.param({}, "gemma", id="all-gemma", marks=pytest.mark.long),
        pytest.param({"lora": LORA}, "gpt2", id="lora-gpt2", marks=pytest.mark.long),
    ],
)
def test_a_state_of_version_0_1_goes_on_where_its_names_are_the_models(
    name: str, changes: dict[str, Any], of: Base, few: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("sft", of(name), few, tmp_path / "output", **changes)
    whole, steps = train("sft", replace(spec, output=tmp_path / "whole")), []
    as_version_0_1(monkeypatch)
    stop("sft", spec, tmp_path / "state")
    monkeypatch.undo()
    result = train("sft", spec, tmp_path / "state", steps)
    assert steps[0] == 3
    assert folder_digest(result.folder) == folder_digest(whole.folder)


@pytest.mark.parametrize("name", ["gpt_neox", pytest.param("mixtral", marks=pytest.mark.long)])
def test_a_state_of_version_0_1_with_other_names_begins_anew_and_says_so(
    name: str, of: Base, few: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = spec_of("sft", of(name), few, tmp_path / "output")
    whole, steps = train("sft", replace(spec, output=tmp_path / "whole")), []
    as_version_0_1(monkeypatch)
    stop("sft", spec, tmp_path / "state")
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING, "rlhf_dagster.training"):
        result = train("sft", spec, tmp_path / "state", steps)
    assert steps[0] == 1
    assert "does not fit the model" in caplog.text
    assert "begins anew, and does 2 steps again" in caplog.text
    assert folder_digest(result.folder) == folder_digest(whole.folder)
