"""`rlhf check-memory` on models, configs alone and loops."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from zoo.make import make_tiny

from rlhf_dagster.cli.app import app
from rlhf_dagster.errors import UserError

STAGES = ["SFT", "Reward model", "PPO", "DPO"]
PARTS = ("weights", "optimizer", "gathered", "activations", "logits", "cache")


def check(what: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check-memory", str(what), *options])
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def stages(what: Path, *options: str) -> dict[str, dict[str, Any]]:
    _, output = check(what, "--json", *options)
    return {row["stage"]: row for row in json.loads(output)["stages"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("model"))


def test_every_stage_has_a_row_with_its_parts(model: Path) -> None:
    code, output = check(model, "--free", "100")
    assert code == 0
    assert "100.0 GB are free on the device given" in output
    rows = [line.split() for line in output.splitlines()]
    assert all(any(" ".join(row).startswith(stage) and row[-1] == "yes" for row in rows) for stage in STAGES)
    for row in stages(model, "--free", "100").values():
        # The rest is what libraries take.
        assert 0 <= row["peak"] - sum(row[part] for part in PARTS) < 100_000_000


def test_what_does_not_fit_is_told_how_to(model: Path) -> None:
    needed = stages(model, "--free", "100")["DPO"]["peak"]
    code, output = check(model, "--free", f"{0.98 * needed / 1e9:.6f}")
    assert code == 1
    assert "DPO fits with one of these:" in output
    ways = stages(model, "--free", f"{0.98 * needed / 1e9:.6f}")["DPO"]["ways"]
    assert 1 <= len(ways) <= 3
    assert all(way["settings"] and way["peak"] <= 0.98 * needed for way in ways)


def test_what_never_fits_is_said(model: Path) -> None:
    code, output = check(model, "--free", "0.001")
    assert code == 1
    assert "PPO does not fit with any settings that were tried; take a smaller model." in output


def test_a_config_alone_is_enough(model: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    assert stages(tmp_path, "--free", "1") == stages(model, "--free", "1")


def test_settings_are_those_of_a_preset_or_of_a_loop(model: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: large\nsft: {batch_size: 4096}\n")
    default, of_loop, of_preset = (
        stages(model, "--free", "1", *options)["SFT"]["activations"]
        for options in ((), ("--loop", str(tmp_path)), ("--preset", "ziegler2019"))
    )
    assert default < of_preset < of_loop
    assert check(model, "--loop", str(tmp_path), "--preset", "tiny") == (
        2,
        "--loop and --preset are two sources of settings; give one of them.",
    )
    code, said = check(model, "--preset", "larger")
    assert code == 2
    assert said.startswith("--preset: ")


def test_a_loop_that_will_make_its_model_is_told_what_pretraining_needs(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: sentiment\n")
    found = stages(tmp_path, "--free", "1")
    assert list(found) == ["Pretraining", *STAGES]


def test_a_loop_whose_model_is_in_a_folder(model: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(f"name: own\nbase_model: {{source: folder, name: {model}}}\n")
    found = stages(tmp_path, "--free", "1")
    assert list(found) == STAGES
    assert found == stages(model, "--free", "1")


def test_no_such_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    code, said = check(tmp_path, "--free", "1")
    assert code == 2
    assert said.count("\n") == 0


def test_arms_have_rows_where_a_loop_asks_for_them_and_are_told_of_their_own_settings(model, tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("arms: [rloo, best_of_n_sft]\n")
    asked = stages(model, "--loop", str(tmp_path), "--free", "100")
    assert [*asked] == [*STAGES, "RLOO", "Best-of-n SFT"]
    for stage, section in (("RLOO", "rloo"), ("Best-of-n SFT", "best_of_n_sft")):
        free = f"{0.98 * asked[stage]['peak'] / 1e9:.6f}"
        ways = stages(model, "--loop", str(tmp_path), "--free", free)[stage]["ways"]
        named = [name.partition(".")[0] for way in ways for name in way["settings"]]
        assert named
        assert set(named) <= {section, "compute", "sampling"}
