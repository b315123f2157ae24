"""Batches in parts: less memory, the same training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_language import Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import silent
from rlhf_dagster.training.trainer import own_parts

Make = Callable[[Path], Any]


@pytest.fixture
def specs(base: Path, sft: Path, tables: Tables) -> dict[str, Make]:
    return {
        "sft": lambda output: sft_spec(base, tables, output),
        "reward_model": lambda output: reward_spec(sft, tables, output),
        "dpo": lambda output: dpo_spec(sft, tables, output),
    }


@pytest.mark.parametrize("stage", ["sft", "reward_model", "dpo"])
def test_one_pass_over_64_rows_is_four_over_16(stage: str, specs: dict[str, Make], tmp_path: Path) -> None:
    results = {}
    for parts in (1, 4):
        spec = specs[stage](tmp_path / str(parts))
        spec = replace(spec, settings=spec.settings.changed(batch_size=64, accumulate=parts, epochs=2))
        results[parts] = train_here(stage, spec, silent, KEEP_NOTHING)
    whole, split = results[1], results[4]
    assert split.curves.keys() == whole.curves.keys()
    for name, values in whole.curves.items():
        assert split.curves[name] == pytest.approx(values, rel=1e-3, abs=1e-4), name
    assert split.metrics == pytest.approx(whole.metrics, rel=1e-3, abs=1e-4)
    trained, other = (load_file(result.folder / "model.safetensors") for result in (whole, split))
    for name, tensor in trained.items():
        # The keys' bias has the rounding of 0 as its gradient, which Adam scales up.
        if not name.endswith("c_attn.bias"):
            torch.testing.assert_close(other[name], tensor, atol=1e-4, rtol=0)


def test_parts_weigh_what_their_rows_count_for() -> None:
    rows = [1.0, 2.0, 3.0, 4.0, 6.0]
    parts = own_parts(rows, 2, lambda row: row, lambda part: {"rows": torch.tensor(part)})["parts"]
    assert [part["rows"].tolist() for part in parts] == [[1, 2], [3, 4, 6]]
    assert [float(part["scale"]) for part in parts] == pytest.approx([3 / 16, 13 / 16])


def test_a_part_without_rows_counts_nothing() -> None:
    parts = own_parts([5.0], 3, lambda row: row, lambda part: {"rows": torch.tensor(part)})["parts"]
    assert [(part["rows"].tolist(), float(part["scale"])) for part in parts] == [([5], 0), ([5], 0), ([5], 1)]
