"""`rlhf check-model` on models of several architectures."""

from pathlib import Path

import pytest
from typer.testing import CliRunner
from zoo.make import make_tiny

from rlhf_dagster.cli.app import app
from rlhf_dagster.errors import UserError


def check(folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check-model", str(folder), *options])
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def test_a_common_model_can_do_everything(tmp_path: Path) -> None:
    code, output = check(make_tiny("llama", tmp_path / "model"))
    assert code == 0
    lines = [line.strip() for line in output.splitlines()]
    assert lines[0].startswith(f"{tmp_path / 'model'}: LlamaForCausalLM, ")
    assert any(line.startswith("sampling") and line.endswith("rows that have ended leave") for line in lines)
    assert [line for line in lines if " no: " in line and not line.startswith("sft.chat")] == []
    assert sum(line.startswith("memory, ") and line.endswith(" GB") for line in lines) == 4


def test_what_a_recurrent_model_cannot_do_is_said(tmp_path: Path) -> None:
    code, output = check(make_tiny("mamba", tmp_path / "model"))
    assert code == 0
    assert "by the model's own `generate`" in output
    assert "MambaForSequenceScoring" in output
    assert "no: sft.packing: MambaForCausalLM does not keep texts of one row apart" in " ".join(output.split())
    assert "set `compute.rollout_backend: native`" in " ".join(output.split())


@pytest.mark.parametrize("name", ["bert-bidirectional", "xlnet"])
def test_no_loop_on_a_model_that_is_no_language_model(name: str, tmp_path: Path) -> None:
    code, said = check(make_tiny(name, tmp_path / "model"))
    assert code == 2
    assert said.count("\n") <= 1


def test_memory_is_that_of_a_loop_s_settings(tmp_path: Path) -> None:
    model, loop = make_tiny("llama", tmp_path / "model"), tmp_path / "loop"
    loop.mkdir()
    (loop / "loop.yaml").write_text("name: large\nsft: {batch_size: 4096}\n")
    small, large = (
        next(line for line in check(model, *options)[1].splitlines() if "memory, SFT" in line)
        for options in ((), ("--loop", str(loop)))
    )
    assert float(large.split()[-2]) > 2 * float(small.split()[-2])
