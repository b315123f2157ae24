"""Splits too small for any policy to be promoted are found before anything is sampled."""

from typing import Any

import pandas as pd
import pytest

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.guards.splits import require_demonstrations, require_prompts


def prompts(train: int = 10, validation: int = 10, test: int = 100) -> pd.DataFrame:
    sizes = {"train": train, "validation": validation, "test": test}
    return pd.DataFrame({"split": [split for split, n in sizes.items() for _ in range(n)]})


def refusal(frame: pd.DataFrame, **sections: Any) -> str:
    with pytest.raises(UserError) as refused:
        require_prompts(LoopConfig.parse(sections, "loop.yaml"), frame)
    return str(refused.value)


def test_what_is_enough_passes() -> None:
    require_prompts(LoopConfig(), prompts())


def test_thirty_prompts_are_refused_at_once() -> None:
    assert refusal(prompts(test=30)) == (
        "The test split has 30 prompts, and gate.min_judgments asks for 100 comparisons, one on each: no policy could "
        "ever be promoted; give more prompts, raise `data.test`, or lower gate.min_judgments."
    )
    require_prompts(LoopConfig.parse({"gate": {"min_judgments": 30}}, ""), prompts(test=30))
    # No win rate is asked for, so that no number of judgments is needed.
    require_prompts(LoopConfig.parse({"gate": {"min_win_rate": None}}, ""), prompts(test=1))


def test_empty_splits_that_are_needed_are_refused() -> None:
    assert "No prompt is in the test split" in refusal(prompts(test=0), gate={"min_win_rate": None})
    assert "No prompt is in the train split" in refusal(prompts(train=0))
    assert "ppo.validate_every measures on prompts" in refusal(prompts(validation=0), ppo={"validate_every": 5})
    rloo = {"arms": ["rloo"], "rloo": {"validate_every": 5}}
    assert "rloo.validate_every measures on prompts" in refusal(prompts(validation=0), **rloo)
    best = {"arms": ["dpo"], "release": {"arm": "best"}}
    assert "`release.arm: best` chooses on prompts of the validation split" in refusal(prompts(validation=0), **best)
    require_prompts(LoopConfig(), prompts(validation=0))
    # PPO, which is set to look, is not trained.
    released = {"ppo": {"validate_every": 5}, "release": {"arm": "dpo"}}
    require_prompts(LoopConfig.parse(released, ""), prompts(validation=0))


def test_demonstrations_that_are_all_held_out_are_refused() -> None:
    require_demonstrations(pd.DataFrame({"split": ["validation", "train"]}))
    with pytest.raises(UserError, match="None of 2 demonstrations is in the train split"):
        require_demonstrations(pd.DataFrame({"split": ["validation", "validation"]}))
