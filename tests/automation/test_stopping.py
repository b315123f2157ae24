"""The stop cord in the middle of a run: the training keeps its state, and goes on from it after `rlhf resume`."""

from collections.abc import Callable
from typing import Any

import dagster as dg
from loops import ROUND, checkpoint, rlhf_here, run_missing

from rlhf_dagster.assets.one_sentence import STOPPED_TAG
from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.progress import listening


def test_a_stopped_training_goes_on_where_it_stopped(stages: Any, copy_of: Callable[..., LoopRunner]) -> None:
    runner, asset = copy_of(stages.unjudged), "ppo_policy"
    root, steps = runner.loop.root, list[int]()
    before = checkpoint(runner.loop, asset, ROUND)

    def stop_at_the_first_step(stage: str, step: int, *_: object) -> None:
        if stage == asset:
            steps.append(step)
            if step == 1:
                said = rlhf_here("stop", "the rewards look odd", "--by", "Ada", "--loop", root)
                assert "Trainings end at their next checkpoint" in said.stdout

    with listening(stop_at_the_first_step):
        stopped = runner.run("train_round", ROUND, [asset])
    assert stopped.failure == "Stopped by Ada: the rewards look odd. `rlhf resume` lets the loop go on."
    run = runner.instance.get_run_by_id(stopped.run_id)
    assert (run.status, run.tags[STOPPED_TAG]) == (dg.DagsterRunStatus.FAILURE, "true")
    assert steps == [1]
    assert (
        run_missing(runner, "collect_round", open_next_round(runner.instance, runner.loop)).failure == stopped.failure
    )

    assert "It was stopped at" in rlhf_here("resume", "--loop", root).stdout
    with listening(lambda stage, step, *_: steps.append(step)):
        assert runner.run("train_round", ROUND, [asset]).success
    assert steps == list(range(1, len(steps) + 1))
    assert checkpoint(runner.loop, asset, ROUND) == before
    assert "The loop was not stopped." in rlhf_here("resume", "--loop", root).stdout


def test_a_stop_without_a_reason_is_refused_and_the_first_one_holds(
    stages: Any, copy_of: Callable[..., LoopRunner]
) -> None:
    root = copy_of(stages.prepared).loop.root
    refused = rlhf_here("stop", " ", "--loop", root)
    assert (refused.returncode, "Say why" in refused.stderr) == (2, True)
    rlhf_here("stop", "one", "--by", "Ada", "--loop", root)
    assert rlhf_here("stop", "two", "--loop", root).stdout.startswith("Stopped by Ada: one.")
