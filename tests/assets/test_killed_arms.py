"""A process killed in the middle of an arm's stages, or of the choice among arms: the next run ends as if it were not.

What is killed and gone on with here is best-of-n SFT, which draws samples before it trains on them.
"""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from forks import forked
from loops import ROUND, Stages, asset_path, copy_loop, open_runner, run_missing

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.progress import listening
from rlhf_dagster.config.arms import BEST_OF_N_SFT
from rlhf_dagster.loop.arms import choice
from rlhf_dagster.loop.candidate import CHOICE, arm_policy
from rlhf_dagster.loop.trainings import best_samples

ASSET = BEST_OF_N_SFT.asset
PROMPTS, BATCH, LAST = 32, 8, 8
SETTINGS: dict[str, Any] = {
    "arms": [BEST_OF_N_SFT.name],
    "release": {"arm": "best", "prompts": 24},
    "best_of_n_sft": {"n": 2, "prompts": PROMPTS, "batch_size": BATCH, "epochs": LAST * BATCH / PROMPTS},
    "compute": {"checkpoint_seconds": 0},
}


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step(stage: str, step: int, *_: object) -> None:
    if (stage, step) == (ASSET, 3):
        die()


PLACES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "before the best are drawn": lambda: mock.patch.object(best_samples, "best_responses", die),
    "while the best are written": lambda: mock.patch.object(best_samples, "seal", die),
    "in the training": lambda: listening(die_at_step),
    "in the choice": lambda: mock.patch.object(choice, "role_scores", die),
}
"""By where the process is killed, what kills it there."""


def make_and_die(root: Path, asset: str, place: str) -> None:
    with PLACES[place]():
        open_runner(root).run("train_round", ROUND, [asset])


def killed(root: Path, asset: str, place: str) -> LoopRunner:
    """The loop after a process that was killed in the middle of an asset."""
    process = forked(make_and_die, root, asset, place)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return open_runner(root)


@pytest.fixture(scope="module")
def whole(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    """The loop that nobody killed, up to its choice."""
    runner = copy_loop(stages.unjudged, tmp_path_factory.mktemp("whole") / "loop", **SETTINGS)
    outcome = run_missing(runner, "train_round", ROUND, until=CHOICE)
    assert outcome.success, outcome
    return runner


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the prompts of each drawing in this process."""
    draw, found = best_samples.best_responses, list[int]()

    def counted(loop: Any, policy: Any, reward_model: Any, prompts: list[str], *rest: Any) -> Any:
        found.append(len(prompts))
        return draw(loop, policy, reward_model, prompts, *rest)

    monkeypatch.setattr(best_samples, "best_responses", counted)
    return found


@pytest.mark.parametrize(
    ("place", "draws", "first"),
    [
        ("before the best are drawn", [PROMPTS], 1),
        ("while the best are written", [PROMPTS], 1),
        # The step at which it was killed was reported before its state was written.
        ("in the training", [], 3),
    ],
)
def test_the_arm_draws_once_trains_on_and_ends_as_if_it_had_not_been(
    place: str, draws: list[int], first: int, whole: LoopRunner, drawn: list[int], stages: Stages, copy_of: Callable
) -> None:
    runner, steps = killed(copy_of(stages.unjudged, **SETTINGS).loop.root, ASSET, place), list[int]()
    assert runner.missing("train_round", ROUND)[0] == ASSET
    with listening(lambda stage, step, *_: steps.append(step)):
        outcome = runner.run("train_round", ROUND, [ASSET])
    assert outcome.success, outcome
    assert drawn == draws
    assert steps == list(range(first, LAST + 1))
    made, other = (arm_policy(loop, BEST_OF_N_SFT, ROUND) for loop in (runner.loop, whole.loop))
    assert (made.model_id, made.digest) == (other.model_id, other.digest)
    assert [path for path in (runner.loop.root / "work").iterdir() if BEST_OF_N_SFT.name in path.name] == []


def test_the_choice_is_made_as_if_it_had_not_been(whole: LoopRunner, copy_of: Callable) -> None:
    loop = copy_of(whole.loop.root, **SETTINGS).loop
    file = asset_path(loop, CHOICE, ROUND, "json")
    file.unlink()
    runner = killed(loop.root, CHOICE, "in the choice")
    assert not file.exists()
    assert runner.missing("train_round", ROUND, until=CHOICE) == [CHOICE]
    outcome = run_missing(runner, "train_round", ROUND, until=CHOICE)
    assert outcome.success, outcome
    assert runner.loop.json(CHOICE, ROUND) == whole.loop.json(CHOICE, ROUND)
