"""What an asset reads before it is there, or cannot be kept, fails the asset with one sentence."""

import pytest
from loops import ROUND, Stages, asset_path

from rlhf_dagster.assets.rounds import open_next_round


@pytest.mark.parametrize(
    ("job", "assets", "sentence"),
    [
        ("train_round", ["preference_labels"], f"preference_batch of {ROUND} is not there yet; materialise it first."),
        ("train_round", ["reward_model"], f"preference_dataset of {ROUND} is not there yet"),
        ("train_round", ["ppo_policy"], f"preference_dataset of {ROUND} is not there yet"),
        ("release_round", ["promotion"], f"eval_report of {ROUND} is not there yet"),
    ],
)
def test_a_job_that_is_run_too_early_says_what_comes_first(stages: Stages, copy_of, job, assets, sentence) -> None:
    runner = copy_of(stages.prepared)
    assert open_next_round(runner.instance, runner.loop) == ROUND
    outcome = runner.run(job, ROUND, assets)
    assert not outcome.success
    assert sentence in outcome.failure
    assert "Traceback" not in outcome.failure


def test_an_asset_without_rounds_is_named_alone(stages: Stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    asset_path(runner.loop, "prompts").unlink()
    open_next_round(runner.instance, runner.loop)
    outcome = runner.run("collect_round", ROUND)
    assert outcome.failure.startswith("prompts is not there yet; materialise it first.")


def test_what_cannot_be_kept_is_said_without_an_error_s_name(stages: Stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    open_next_round(runner.instance, runner.loop)
    folder = asset_path(runner.loop, "completions", ROUND).parent
    folder.write_text("a file where the folder belongs")
    outcome = runner.run("collect_round", ROUND)
    assert outcome.failed_asset == "completions"
    assert outcome.failure == f"{folder}: cannot write here (File exists); choose a folder you can write to."
