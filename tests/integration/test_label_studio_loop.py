"""A loop whose annotators work in a real Label Studio, beside the same loop with the embedded label store."""

import shutil

import pandas as pd
import pytest
from loops import ROUND, asset_path, checkpoint, copy_loop, run_round

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.loop.folder import LoopFolder

pytestmark = pytest.mark.integration
CLOCKS = ["created_at", "updated_at"]
GONE = {"kind": "label_studio", "url": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def through_label_studio(label_studio, stages, tmp_path_factory) -> LoopRunner:
    """The small loop's first round, its simulated annotators at work in Label Studio."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABEL_STUDIO_API_KEY", label_studio.token)
        store = {"kind": "label_studio", "url": label_studio.url}
        runner = copy_loop(stages.prepared, tmp_path_factory.mktemp("ls") / "loop", label_store=store)
        assert run_round(runner) == ROUND
        yield runner


def table(loop: LoopFolder, asset: str, drop: list[str]) -> pd.DataFrame:
    return pd.read_parquet(asset_path(loop, asset, ROUND)).drop(columns=drop)


@pytest.mark.parametrize(
    ("asset", "drop"),
    [
        ("preference_batch", ["project", "task_id"]),
        ("preference_labels", CLOCKS),
        ("preference_dataset", []),
        ("evaluation_batch", ["project", "task_id"]),
    ],
)
def test_the_tables_are_those_of_the_embedded_store(
    through_label_studio, finished, asset: str, drop: list[str]
) -> None:
    key = "label_id" if "label" in asset or "dataset" in asset else "comparison_id"
    ours, theirs = (
        table(runner.loop, asset, drop).sort_values(key, ignore_index=True)
        for runner in (through_label_studio, finished)
    )
    pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("asset", ["reward_model", "ppo_policy"])
def test_the_models_are_those_of_the_embedded_store(through_label_studio, finished, asset: str) -> None:
    ours, theirs = (checkpoint(runner.loop, asset, ROUND) for runner in (through_label_studio, finished))
    assert (ours.model_id, ours.digest) == (theirs.model_id, theirs.digest)


def test_no_token_is_kept_in_the_loops_folder(through_label_studio, label_studio) -> None:
    token = label_studio.token.encode()
    files = [path for path in through_label_studio.loop.root.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if token in path.read_bytes()] == []


def test_a_server_that_is_down_fails_the_asset_with_one_sentence(through_label_studio, tmp_path) -> None:
    runner = copy_loop(through_label_studio.loop.root, tmp_path / "loop", label_store=GONE)
    shutil.rmtree(runner.loop.root / "registry")  # nothing was promoted
    outcome = runner.run("train_round", ROUND, ["preference_labels"])
    assert not outcome.success
    assert outcome.failed_asset == "preference_labels"
    assert "http://127.0.0.1:9" in outcome.failure
    assert "Traceback" not in outcome.failure


def test_a_decided_round_needs_no_server(through_label_studio, tmp_path) -> None:
    before = table(through_label_studio.loop, "preference_labels", [])
    runner = copy_loop(through_label_studio.loop.root, tmp_path / "loop", label_store=GONE)
    assert runner.loop.is_decided(ROUND)
    assert runner.run("train_round", ROUND, ["preference_labels"]).success
    pd.testing.assert_frame_equal(table(runner.loop, "preference_labels", []), before)
