"""Every way of PPO: trained, saved as a plain model, with the reference it should have."""

from pathlib import Path

import pytest
import torch
from ppo_modes import MODES, spec_of
from toy_language import Tables
from transformers import AutoModelForCausalLM

from rlhf_dagster.training.ppo import train_ppo


@pytest.mark.parametrize("mode", MODES)
def test_it_trains_and_leaves_a_plain_model(
    mode: str, deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path
) -> None:
    result = train_ppo(spec_of(mode, deep_sft, deep_reward, tables, tmp_path / "ppo"))
    assert result.curves["kl"][0] == pytest.approx(0, abs=1e-4)
    assert result.curves["ratio_first"] == pytest.approx([1.0] * 4, abs=1e-4)
    assert abs(result.curves["kl"][-1]) > 1e-4
    assert result.warnings == []
    plain, report = AutoModelForCausalLM.from_pretrained(result.folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    start = AutoModelForCausalLM.from_pretrained(deep_sft)
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), start.parameters(), strict=True))
