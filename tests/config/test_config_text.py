import re
from pathlib import Path

import pytest
import yaml

from rlhf_dagster.cli.start.starters import STARTERS
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.config.text import chosen_yaml, commented_yaml, presets_table, reference_page

CHOSEN = {
    **STARTERS,
    **{preset: {"preset": preset, "seed": 5} for preset in PRESETS},
    "nothing": {},
    "nested": {"base_model": {"tiny": {"layers": 3}}, "ppo": {"kl_target": None, "max_grad_norm": 1.0}},
    "judge": {"reward": {"kind": "http", "model": "m: odd", "service": {"max_requests": 5}}},
    "rewards": {"reward": {"kind": "ensemble", "parts": [{"kind": "model"}, {"kind": "length", "longest": 20}]}},
    "dataset": {"data": {"prompts_dataset": {"name": "owner/name: odd", "prompt": "q"}, "pretraining_files": ["a: b"]}},
}
SETTING = re.compile(r"# (\s*[a-z0-9_]+:( .*)?)")


@pytest.mark.parametrize("name", CHOSEN)
def test_a_commented_file_is_the_same_config(name) -> None:
    text = commented_yaml(CHOSEN[name])
    assert LoopConfig.parse(yaml.safe_load(text) or {}, name) == LoopConfig(**CHOSEN[name])


@pytest.mark.parametrize("name", CHOSEN)
def test_a_file_of_what_is_chosen_has_no_more(name) -> None:
    reasons = dict.fromkeys(CHOSEN[name], "why")
    written = yaml.safe_load(chosen_yaml(CHOSEN[name], reasons)) or {}
    assert written == CHOSEN[name]


@pytest.mark.parametrize("name", CHOSEN)
def test_taking_the_marks_away_changes_nothing(name) -> None:
    """Each setting in a comment is a valid line with the default as its value."""
    lines = commented_yaml(CHOSEN[name]).splitlines()
    opened = [match[1] if (match := SETTING.fullmatch(line)) else line for line in lines]
    # In a section that is in use, its own settings are indented before the mark, and theirs after it too.
    opened = [re.sub(r"^( +)# ( *[a-z0-9_]+:( .*)?)$", r"\1\2", line) for line in opened]
    values = yaml.safe_load("\n".join(opened))
    assert values.keys() == LoopConfig.model_fields.keys()
    assert values["sft"].keys() == type(LoopConfig().sft).model_fields.keys()
    assert LoopConfig.parse(values, name) == LoopConfig(**CHOSEN[name])


def test_an_arm_s_file_has_its_own_settings_and_those_that_are_chosen() -> None:
    """What it takes over from `ppo` would be set there, where a mark is taken away."""
    chosen = {"arms": ["rloo"], "ppo": {"updates": 7}, "rloo": {"kl_coef": 0.5}}
    text = commented_yaml(chosen)
    lines = text[text.index("\nrloo:") : text.index("# grpo:")].splitlines()
    settings = [line.strip(" #").partition(":")[0] for line in lines if re.match(r"\s+(# )?[a-z_]+: ", line)]
    assert settings == ["kl_coef", "advantages", "samples_per_prompt"]
    assert LoopConfig.parse(yaml.safe_load(text), "f").rloo.updates == 7


def test_only_what_is_chosen_is_set() -> None:
    assert yaml.safe_load(commented_yaml(STARTERS["task"])) == STARTERS["task"]
    assert yaml.safe_load(commented_yaml(STARTERS["imports"])) == STARTERS["imports"]


def test_every_setting_has_its_row_in_the_reference() -> None:
    page = reference_page()
    for section in ("data", "base_model", "base_model.tiny", "sampling", "ppo", "gate", "compute"):
        assert f"## `{section}`" in page
    for given in ("HubDataset", "LoraSettings"):
        assert page.count(f"## {given}, where it is given") == 1
    for setting, default in (
        ("seed", 0),
        ("kl_horizon", LoopConfig().ppo.kl_horizon),
        ("min_judgments", 100),
        ("alpha", 16.0),
    ):
        assert re.search(rf"^\| `{setting}` \| \S.* \| `{default}` \| \S.* \|$", page, re.MULTILINE)


def test_the_table_of_presets_in_the_docs_is_the_code_s() -> None:
    page = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
    assert page.endswith(presets_table() + "\n")
    assert "| `ppo.ema_decay` | null | null | null | null | null | 0.992 |" in page
    assert "| `ppo.lora.base_bits` | – | – | null | 4 | – | – |" in page


def test_the_page_in_the_repository_is_the_code_s() -> None:
    page = Path(__file__).parents[2] / "docs" / "config.md"
    if not page.exists():
        pytest.skip("docs/config.md is not there; `make docs` writes it")
    assert page.read_text(encoding="utf-8").strip() == reference_page().strip()
