"""What best-of-n SFT trains on: whole responses that were chosen, drawn once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from loops import Stages, checkpoint

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.arm_settings.best_of_n_sft import BestOfNSftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.trainings import best_samples
from rlhf_dagster.loop.trainings.best_samples import BEST_ROWS, Sampler
from rlhf_dagster.training.models.policies import load_tokenizer
from rlhf_dagster.training.sampling.best_of_n import Best
from rlhf_dagster.training.sampling.sample import Sample

PROMPTS = 6


@pytest.fixture
def sampler(stages: Stages, copy_of: Callable[..., LoopRunner]) -> Sampler:
    loop = copy_of(stages.prepared, sampling={"response_tokens": 3, "fixed_length": False}).loop
    sft = checkpoint(loop, "sft_checkpoint")
    # Who scores is not looked at: the choices are given below.
    return Sampler(loop, sft, sft, BestOfNSftSettings(n=2, prompts=PROMPTS), seed=5)


def given(sampler: Sampler, monkeypatch: pytest.MonkeyPatch, unended: int) -> list[int]:
    """Let so many of the best responses not end; returns a list that grows by the prompts of each drawing."""
    end, drawn = load_tokenizer(sampler.policy.folder).eos_token_id, list[int]()

    def best(loop: Any, policy: Any, reward_model: Any, prompts: list[str], n: int, seed: int) -> list[Best]:
        drawn.append(len(prompts))
        ids = [[7, 8, 9] if row < unended else [7, 8, end] for row in range(len(prompts))]
        return [Best(Sample(f"text {row}", own, [0.0] * 3), 1.0, 0.5) for row, own in enumerate(ids)]

    monkeypatch.setattr(best_samples, "best_responses", best)
    return drawn


def draw(sampler: Sampler, folder: Path) -> dict[str, float]:
    prompts = sampler.loop.table("prompts")
    assert prompts is not None
    return sampler.draw(prompts, folder)


def test_responses_that_were_cut_are_left_out_and_counted(sampler, monkeypatch, tmp_path) -> None:
    given(sampler, monkeypatch, unended=2)
    figures = draw(sampler, tmp_path / "drawn")
    assert figures == {"reward_of_best": 1.0, "reward_of_samples": 0.5, "unended_responses": 2.0}
    rows = pd.read_parquet(tmp_path / "drawn" / BEST_ROWS)
    assert rows["response"].tolist() == [f"text {row}" for row in range(2, PROMPTS)]
    prompts = sampler.loop.table("prompts").set_index("prompt_id")
    assert set(prompts.loc[rows["prompt_id"], "split"]) == {"train"}
    assert rows["prompt"].tolist() == prompts.loc[rows["prompt_id"], "text"].tolist()


def test_without_a_whole_response_there_is_nothing_to_train_on(sampler, monkeypatch, tmp_path) -> None:
    given(sampler, monkeypatch, unended=PROMPTS)
    with pytest.raises(UserError, match=f"None of the {PROMPTS} best responses ends within sampling.response_tokens"):
        draw(sampler, tmp_path / "drawn")


def test_an_interrupted_stage_draws_once_and_other_settings_draw_anew(sampler, monkeypatch, tmp_path) -> None:
    drawn = given(sampler, monkeypatch, unended=0)
    assert draw(sampler, tmp_path / "drawn") == draw(sampler, tmp_path / "drawn")
    assert drawn == [PROMPTS]
    other = Sampler(sampler.loop, sampler.policy, sampler.reward_model, BestOfNSftSettings(n=3, prompts=4), seed=5)
    draw(other, tmp_path / "drawn")
    assert drawn == [PROMPTS, 4]
