"""Architectures that hold, share or name their weights in ways of their own train in parts as they do whole."""

from pathlib import Path
from typing import Any

import pytest
import test_resume_architectures
from sharded_cases import IN_PARTS, require_the_same, sharded
from test_ranks import train_on_ranks
from test_resume_architectures import Base, spec_of
from test_sharding import Outcomes
from toy_language import Tables

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import silent

NAMES = ("mixtral", "qwen3_moe", "deepseek_v3", "gemma", "opt", "gpt_neox")
"""Experts as one tensor, experts beside dense layers, tied and untied embeddings, projections around the layers."""
STAGES = ("sft", "reward_model", "dpo", "ppo")
CASES = [(stage, name) for name in NAMES for stage in STAGES]
pytestmark = pytest.mark.long
of, few = test_resume_architectures.of, test_resume_architectures.few


@pytest.fixture(scope="module")
def together(of: Base, few: Tables, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    folder = tmp_path_factory.mktemp("together")
    specs = {case: (case[0], made(case[0], of(case[1]), few, folder / "-".join(case))) for case in CASES}
    outcomes = train_on_ranks(folder, [sharded(spec, IN_PARTS) for spec in specs.values()])
    rows = zip(CASES, zip(*outcomes, strict=True), strict=True)
    return folder, {"-".join(case): list(row) for case, row in rows}


def made(stage: str, model: Path, tables: Tables, output: Path) -> Any:
    return spec_of(stage, model, tables, output, **({} if stage == "reward_model" else {"accumulate": 2}))


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_ranks_with_parts_train_what_one_process_trains(
    stage: str,
    name: str,
    of: Base,
    few: Tables,
    together: Outcomes,
    tmp_path: Path,
) -> None:
    alone = train_here(stage, made(stage, of(name), few, tmp_path / "alone"), silent, KEEP_NOTHING)
    folder, outcomes = together
    for outcome in outcomes[f"{stage}-{name}"]:
        # Where a gradient is that of rounding, as that of a key's bias, Adam makes whole steps of it.
        require_the_same(outcome, folder / f"{stage}-{name}", alone, others=0.05)
