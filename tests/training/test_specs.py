import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.config.training import PpoSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.specs import PpoSpec, SftSpec, spec_from_json, spec_to_json


def test_a_spec_survives_json() -> None:
    spec = PpoSpec(
        sft=Path("sft"),
        start=Path("start"),
        reward_model=Path("rm"),
        prompts=Path("prompts.parquet"),
        pretraining_text=None,
        output=Path("out"),
        settings=PpoSettings(kl_target=None, kl_coef=0.02),
        sampling=SamplingSettings(temperature=0.7),
        seed=7,
    )
    assert spec_from_json(PpoSpec, spec_to_json(spec), "spec.json") == spec


@pytest.mark.parametrize(("text", "problem"), [("{", "Invalid JSON"), ('{"model": "m"}', "demonstrations")])
def test_a_bad_spec_is_a_user_error_that_names_the_file(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=rf"spec\.json.*{problem}"):
        spec_from_json(SftSpec, text, "spec.json")


def test_every_preset_fits_its_own_lengths() -> None:
    for preset in PRESETS.values():
        sampling, reward_model, sft = preset["sampling"], preset["reward_model"], preset["sft"]
        assert isinstance(sampling, SamplingSettings)
        end = 0 if sampling.fixed_length else 1
        needed = sampling.prompt_tokens + sampling.response_tokens + end
        assert needed <= reward_model.max_tokens  # type: ignore[attr-defined]
        assert needed <= sft.max_tokens  # type: ignore[attr-defined]


def test_settings_specs_and_presets_import_no_torch() -> None:
    code = (
        "import sys, rlhf_dagster.training.specs, rlhf_dagster.config.presets, rlhf_dagster.lineage.model_folders;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_instructgpt_learns_all_pairs_of_a_ranking() -> None:
    """Ouyang et al. 2022, equation 1; Ziegler et al. 2019 have the best of four."""
    rankings = {name: preset["reward_model"].model_dump()["ranking"] for name, preset in PRESETS.items()}
    assert rankings == dict.fromkeys(PRESETS, "plackett_luce") | {"instructgpt": "pairs"}
