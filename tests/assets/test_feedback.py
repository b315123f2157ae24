"""A round whose DPO policy learns from what people thought of single responses too (KTO)."""

from pathlib import Path

import pandas as pd
import pytest
from loops import ROUND, Stages, asset_path, checkpoint, copy_loop, run_missing

from rlhf_dagster.assets.graph import loop_assets
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.config.training import DpoSettings
from rlhf_dagster.data.imported import add_feedback
from rlhf_dagster.data.line_records import FeedbackLine
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import inputs_hash, read_manifest
from rlhf_dagster.loop.trainings.dpo import make_dpo_policy

KTO = {"arms": ["dpo"], "dpo": {"loss": "kto", "batch_size": 16}}


@pytest.fixture(scope="module")
def runner(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> LoopRunner:
    runner = copy_loop(stages.unjudged, tmp_path_factory.mktemp("feedback") / "loop", **KTO)
    prompts = pd.read_parquet(asset_path(runner.loop, "prompts", ""))
    thoughts = [
        FeedbackLine(row.text, f"the sky is {word}", word == "good", 1.0, "", "our site")
        for row in prompts.groupby("split").head(4).itertuples()
        for word in ("good", "bad")
    ]
    assert add_feedback(thoughts, runner.loop.store, "our site") == (24, 0)
    assert runner.missing("train_round", ROUND)[:2] == ["feedback", "dpo_policy"]
    outcome = run_missing(runner, "train_round", ROUND, until="dpo_policy")
    assert outcome.success, outcome
    return runner


def test_feedback_on_test_prompts_trains_nothing(runner: LoopRunner) -> None:
    frame = pd.read_parquet(asset_path(runner.loop, "feedback", ROUND))
    assert frame["split"].value_counts().to_dict() == {"train": 8, "validation": 8}


def test_the_policy_says_what_it_learned_from(runner: LoopRunner) -> None:
    manifest = read_manifest(checkpoint(runner.loop, "dpo_policy", ROUND).folder)
    labels = pd.read_parquet(asset_path(runner.loop, "preference_dataset", ROUND))
    assert manifest["metrics"]["responses_train"] > 8
    assert manifest["config"]["dpo"]["loss"] == "kto"
    assert manifest["dataset"]
    assert len(labels)
    assert inputs_hash(manifest) != inputs_hash(manifest | {"feedback": "another"})


def test_only_a_loop_that_learns_from_it_has_it(stages: Stages, tmp_path: Path) -> None:
    for settings, there in ((KTO, True), (KTO | {"arms": []}, False), ({"arms": ["dpo"]}, False)):
        config = copy_loop(stages.unjudged, tmp_path / f"loop-{len(settings)}-{there}", **settings).loop.config
        assert ("feedback" in {asset.key.path[-1] for asset in loop_assets(config)}) is there


def test_one_run_alone_cannot_learn_from_it(runner: LoopRunner) -> None:
    labels = asset_path(runner.loop, "preference_dataset", ROUND)
    with pytest.raises(UserError, match=r"`dpo.loss: kto` learns from the asset `feedback`.*set it in `loop.yaml`"):
        make_dpo_policy(
            runner.loop,
            ROUND,
            DpoSettings(loss="kto"),
            sft=checkpoint(runner.loop, "sft_checkpoint"),
            preferences=labels,
            progress=Progress("dpo_policy", print),
        )
