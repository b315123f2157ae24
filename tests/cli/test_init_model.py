"""`rlhf init --model`: a loop.yaml that fits the model it looks at."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_models import CHATML, chat_tokenizer
from transformers import GPT2Config, LlamaConfig
from typer.testing import CliRunner
from zoo.make import make_tiny

from rlhf_dagster.cli.app import app
from rlhf_dagster.cli.start import model_starter
from rlhf_dagster.cli.start.model_starter import Machine, fitting_preset, settings_for
from rlhf_dagster.config.loop import load_config
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.checkpoints.sources import Source
from rlhf_dagster.training.probe import model_facts
from rlhf_dagster.training.probe.model_facts import ModelFacts, look_at

CARD = Machine("A card", gpu=True, bf16=True, free=80 * 10**9, threads=16)
LAPTOP = Machine("4 CPU threads", gpu=False, bf16=False, free=16 * 10**9, threads=4)


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_starter, "look_around", lambda: LAPTOP)


def init(folder: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["init", str(folder), *options])
    if isinstance(result.exception, UserError):
        return str(result.exception)
    assert result.exception is None, result.exception
    return result.output


def facts(parameters: int, context: int | None = 2048, name: str = "org/model") -> ModelFacts:
    return ModelFacts(name, "0123abc", "llama", parameters, context, [])


def chat_model(folder: Path, template: str | None) -> Path:
    model = make_tiny("llama", folder)
    chat_tokenizer(template).save_pretrained(model)
    return model


def test_the_file_fits_a_folder(tmp_path: Path) -> None:
    model = make_tiny("llama", tmp_path / "model")
    context = json.loads((model / "config.json").read_text())["max_position_embeddings"]
    said = init(tmp_path / "loop", "--model", str(model))
    assert "loop.yaml written" in said
    assert "No GPU was found here, and a round's PPO draws up to " in said
    assert f"rlhf check-model {model} --loop {tmp_path / 'loop'}" in said
    config = load_config(tmp_path / "loop")
    assert (config.base_model.source, config.base_model.name) == ("folder", str(model))
    assert config.preset == "small"
    assert config.ppo == PRESETS["small"]["ppo"]
    assert config.sft.max_tokens == config.reward_model.max_tokens == context
    assert config.sampling.prompt_tokens + config.sampling.response_tokens + 1 == context
    assert (config.compute.precision, config.compute.threads) == ("fp32", 4)
    assert config.data.source == "imports"
    assert not config.label_store.simulated_annotators


def test_each_choice_has_its_reason(tmp_path: Path) -> None:
    init(tmp_path / "loop", "--model", str(make_tiny("llama", tmp_path / "model")))
    text = (tmp_path / "loop" / "loop.yaml").read_text()
    lines = text.splitlines()
    for setting, why in (
        ("preset: small", "parameters, for which `small` is made."),
        ("  prompt_tokens:", "half for the prompt, one for"),
        ("  precision: fp32", "`bf16` would halve the memory"),
        ("  threads: 4", "No GPU was found here"),
    ):
        at = next(index for index, line in enumerate(lines) if line.startswith(setting))
        before = " ".join(line.strip().removeprefix("# > ") for line in lines[at - 2 : at])
        assert why in before, setting
    assert yaml.safe_load(text)["preset"] == "small"


@pytest.mark.parametrize("options", [(), ("--chat",)])
def test_a_chat_model_is_asked_in_its_template_where_that_is_wanted(tmp_path: Path, options: tuple[str, ...]) -> None:
    model = chat_model(tmp_path / "model", CHATML)
    said = init(tmp_path / "loop", "--model", str(model), *options)
    assert ("`--chat` reads prompts in it" in said) == (not options)
    assert load_config(tmp_path / "loop").sft.chat == bool(options)


def test_a_model_without_a_template_cannot_chat(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", None)
    said = init(tmp_path / "loop", "--model", str(model), "--chat")
    assert said == f"--chat: {model} cannot chat: The tokenizer has no chat template; leave --chat out."
    assert not (tmp_path / "loop").exists()


def test_what_is_no_model_leaves_no_loop(tmp_path: Path) -> None:
    assert "there is no such folder" in init(tmp_path / "loop", "--model", str(tmp_path / "absent"))
    assert "there is no such folder" in init(tmp_path / "loop", "--model", "gpt2")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in init(tmp_path / "loop", "--model", str(tmp_path / "empty"))
    assert "give it with --model" in init(tmp_path / "loop", "--chat")
    assert not (tmp_path / "loop").exists()


@pytest.mark.parametrize(
    ("parameters", "machine", "preset"),
    [
        (134_515_008, LAPTOP, "small"),
        (1_235_814_400, CARD, "small"),
        (7_241_732_096, CARD, "lora"),
        (14_770_033_664, CARD, "qlora"),
        (1_235_814_400, LAPTOP, "lora"),
        (7_241_732_096, LAPTOP, "qlora"),
        (7_241_732_096, Machine("?", True, True, None, 1), "lora"),
    ],
)
def test_a_preset_fits_the_model_and_the_machine(parameters: int, machine: Machine, preset: str) -> None:
    found, why = fitting_preset(parameters, machine)
    assert found == preset
    assert why.startswith("parameters")
    assert ("GB free" in why) == ("takes about" in why)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (CARD, {"launch": "process"}),
        (Machine("A card", True, False, None, 2), {"launch": "process", "precision": "fp32"}),
        (LAPTOP, {"threads": 4, "precision": "fp32"}),
    ],
)
def test_compute_is_that_of_the_machine(machine: Machine, expected: dict[str, Any]) -> None:
    assert settings_for(facts(10**9), machine, False, False)[0]["compute"] == expected


def test_a_long_context_keeps_the_presets_lengths() -> None:
    for context in (1024, 32_768, None):
        chosen, _ = settings_for(facts(10**9, context), CARD, False, False)
        assert "sampling" not in chosen
        assert "sft" not in chosen


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (GPT2Config(), 124_439_808),
        (
            # TinyLlama 1.1B: four heads of keys and values.
            LlamaConfig(
                vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                num_attention_heads=32, num_key_value_heads=4,
            ),
            1_100_048_384,
        ),
    ],
)  # fmt: skip
def test_a_model_on_the_hub_is_counted_by_its_config_alone(
    config: Any, parameters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its weights: a folder with a config and a tokenizer stands for what was fetched of the repository."""
    chat_tokenizer(CHATML).save_pretrained(tmp_path / "4c0ffee")
    config.save_pretrained(tmp_path / "4c0ffee")
    source = Source("org/model", "main")
    arguments = {"pretrained_model_name_or_path": str(tmp_path / "4c0ffee"), "local_files_only": True}
    monkeypatch.setattr(Source, "arguments", property(lambda _: arguments))
    monkeypatch.setattr(model_facts, "snapshot", lambda _: tmp_path / "4c0ffee")
    found = look_at(source)
    assert (found.parameters, found.revision, found.can_chat) == (parameters, "4c0ffee", True)
    chosen, reasons = settings_for(found, CARD, False, True)
    assert chosen["base_model"] == {"source": "hub", "name": "org/model", "revision": "4c0ffee"}
    assert chosen["sft"] == {"chat": True}
    assert "Pinned" in reasons["base_model"]["revision"]
