"""What Dagster knows after a round: metadata, data versions, settings of one run, failures."""

import errno
import shutil
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from loops import ROUND, asset_path, checkpoint, run_missing

from rlhf_dagster.assets.metadata import model_result, page_shown
from rlhf_dagster.automation.headlines import HEADLINES
from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.arms import PPO, TRAINED
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop import sampling
from rlhf_dagster.loop.candidate import CHOICE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import PROMPTS, table
from rlhf_dagster.resources.io_managers import TABLES, ParquetFiles

ONCE = {"prompts", "demonstration_batch", "demonstrations", "pretraining_text", "base_model", "sft_checkpoint"}
EVALUATION = ["evaluation_completions", "eval_report", "evaluation_batch", "human_evaluation", "promotion"]
MODELS = ["base_model", "sft_checkpoint", "reward_model", "ppo_policy"]
OF_OTHER_LOOPS = {CHOICE, "feedback", *(arm.asset for arm in TRAINED.values())} - {PPO.asset}
MADE = sorted(HEADLINES.keys() - OF_OTHER_LOOPS)
"""By a round whose loop asks for no other arm."""


def key_of(asset: str) -> str | None:
    return None if asset in ONCE else ROUND


def materialisation(runner: LoopRunner, asset: str, key: str | None) -> dg.AssetMaterialization:
    """The latest one of an asset."""
    partitions = [key] if key else None
    found = runner.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=partitions), limit=1
    ).records[0]
    return found.asset_materialization


def metadata(runner: LoopRunner, asset: str) -> dict[str, Any]:
    found = materialisation(runner, asset, key_of(asset)).metadata
    return {name: value.value for name, value in found.items()}


@pytest.mark.parametrize("asset", sorted(TABLES.keys() - OF_OTHER_LOOPS))
def test_a_table_says_how_many_rows_it_has_and_is_of_its_schema(finished, asset) -> None:
    path = asset_path(finished.loop, asset, key_of(asset) or "")
    found = pq.read_table(path)
    assert found.schema.equals(TABLES[asset], check_metadata=False)
    assert [field.metadata for field in found.schema] == [field.metadata for field in TABLES[asset]]
    assert metadata(finished, asset)["dagster/row_count"] == found.num_rows
    assert (found.num_rows == 0) == (asset == "demonstration_batch")  # nobody is asked to write in this loop


def test_a_page_is_a_link_under_every_name_of_the_ui_or_where_it_is_served_else_it_is_shown(finished, tmp_path) -> None:
    loop = finished.loop
    key = loop.asset_key("eval_report", ROUND, "html")
    assert page_shown(loop, key, "") == dg.MetadataValue.url(f"/loop-pages/assets/eval_report/{ROUND}.html")
    of_a_project = LoopFolder(loop.config, tmp_path)
    shown = page_shown(of_a_project, key, "**ppo is the champion.**")
    assert isinstance(shown, dg.MarkdownMetadataValue)
    said, what = str(shown.value).split("\n\n")
    assert f"the page `{tmp_path}/{key}`" in said
    assert "`automation.pages_url` is its address, a link to it stands here" in said
    assert what == "**ppo is the champion.**"
    automation = loop.config.automation.changed(pages_url="https://pages.example.org/loop")
    served = LoopFolder(loop.config.changed(automation=automation), tmp_path)
    assert page_shown(served, key, "") == dg.MetadataValue.url(f"https://pages.example.org/loop/{key}")


@pytest.mark.parametrize("asset", MODELS)
def test_a_model_shows_its_numbers_and_a_picture_of_its_curves(finished, asset) -> None:
    shown = metadata(finished, asset)
    model = checkpoint(finished.loop, asset, key_of(asset) or "")
    manifest = read_manifest(model.folder)
    assert shown["model_id"] == model.model_id
    assert shown["checkpoint"].endswith(f"/{model.path}")
    numbers = manifest["metrics"].keys() & shown.keys()
    assert len(numbers) >= 2
    for name in numbers:
        assert shown[name] == pytest.approx(manifest["metrics"][name], rel=1e-3)
    assert shown["training_curves"].startswith("![training curves](data:image/png;base64,")


def test_the_report_s_numbers_are_numbers_that_the_ui_plots(finished) -> None:
    found = materialisation(finished, "eval_report", ROUND).metadata
    numbers = {name for name, value in found.items() if isinstance(value, dg.FloatMetadataValue | dg.IntMetadataValue)}
    assert "kl_nats" in numbers
    assert len([name for name in numbers if "vs_" in name]) >= 4
    page = asset_path(finished.loop, "eval_report", ROUND, "html")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("asset", MADE)
def test_the_terminal_shows_a_number_of_every_asset(finished, asset) -> None:
    assert set(HEADLINES[asset]) & metadata(finished, asset).keys()


def test_a_model_names_the_job_of_ray_that_trained_it(finished) -> None:
    model = checkpoint(finished.loop, "sft_checkpoint")
    assert (model_result(StageResult(model, ray_job="rlhf-sft-1")).metadata or {})["ray_job"] == "rlhf-sft-1"
    assert "ray_job" not in (model_result(StageResult(model)).metadata or {})


def test_no_metadata_is_missing_or_not_a_number(finished) -> None:
    for asset in MADE:
        for name, value in metadata(finished, asset).items():
            assert value is not None, (asset, name)
            assert value == value, (asset, name)  # NaN is the one value that differs from itself


def versions(runner: LoopRunner) -> dict[str, str]:
    return {asset: materialisation(runner, asset, key_of(asset)).tags["dagster/data_version"] for asset in MADE}


def test_the_same_again_has_the_same_data_versions(stages, copy_of) -> None:
    """So that a repeated run leaves everything downstream fresh, and the same seed makes the same loop."""
    runner = copy_of(stages.finished)
    before = versions(runner)
    shutil.rmtree(runner.loop.root / "models" / checkpoint(runner.loop, "ppo_policy", ROUND).model_id)
    for job, assets in job_assets(runner.loop.config).items():
        if job != "release_round":
            assert runner.run(job, None if job == "prepare" else ROUND, assets).success
    assert versions(runner) == before


def test_another_seed_has_other_data_versions(stages, copy_of, finished) -> None:
    runner = copy_of(stages.prepared, seed=4)
    assert runner.run("prepare", None, ["prompts", "demonstration_batch", "demonstrations", "pretraining_text"]).success
    one, other = (
        {
            asset: materialisation(loop, asset, None).tags["dagster/data_version"]
            for asset in ("prompts", "demonstrations")
        }
        for loop in (finished, runner)
    )
    assert all(one[asset] != other[asset] for asset in one)
    text = [materialisation(loop, "pretraining_text", None).tags["dagster/data_version"] for loop in (finished, runner)]
    assert text[0] == text[1]


def launch(runner: LoopRunner, asset: str, **settings: Any) -> dg.ExecuteInProcessResult:
    """Materialise one asset as the launchpad does, with some settings for this run."""
    return runner.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=runner.instance,
        asset_selection=[dg.AssetKey(asset)],
        partition_key=key_of(asset),
        run_config={"ops": {asset: {"config": settings}}},
        raise_on_error=False,
    )


@pytest.mark.parametrize(
    ("asset", "stage", "settings"),
    [
        ("sft_checkpoint", "sft", {"learning_rate": 1e-5}),
        pytest.param("reward_model", "reward_model", {"learning_rate": 1e-5}, marks=pytest.mark.long),
        ("ppo_policy", "ppo", {"updates": 2, "start": "sft"}),
    ],
)
def test_a_setting_from_the_launchpad_holds_for_one_run(stages, copy_of, asset, stage, settings) -> None:
    runner = copy_of(stages.unjudged)
    usual = getattr(runner.loop.config, stage)
    assert launch(runner, asset, **settings).success
    model = checkpoint(runner.loop, asset, key_of(asset) or "")
    assert read_manifest(model.folder)["config"][stage] == usual.changed(**settings).recorded()
    assert model != checkpoint(LoopFolder.open(stages.unjudged), asset, key_of(asset) or "")
    policy = ["ppo_policy"] if asset == "reward_model" else []
    assert runner.run("train_round", ROUND, [*policy, *EVALUATION]).success
    assert getattr(runner.loop.config, stage) == usual


@pytest.mark.parametrize(
    ("asset", "settings", "sentence"),
    [
        ("ppo_policy", {"updates": 0}, "run config: `updates`: input should be greater than or equal to 1 (found 0)."),
        ("ppo_policy", {"start": "afresh"}, "run config: `start`: input should be 'sft' or 'behaviour'"),
        (
            "sft_checkpoint",
            {"epochs": -1.0},
            "run config: `epochs`: input should be greater than or equal to 0 (found -1.0).",
        ),
    ],
)
def test_a_wrong_setting_from_the_launchpad_is_one_sentence(stages, copy_of, asset, settings, sentence) -> None:
    result = launch(copy_of(stages.unjudged), asset, **settings)
    (failure,) = result.get_step_failure_events()
    data = failure.step_failure_data
    assert data.user_failure_data.description.startswith(sentence)
    assert data.error.cls_name == "Failure"


def test_what_the_user_can_mend_fails_with_its_sentence_and_is_not_retried(stages, copy_of) -> None:
    sentence = "No prompt is in the test split, so nothing can be measured; give more prompts or raise `data.test`."
    runner = copy_of(stages.prepared, data={"test": 0.0})
    outcome = runner.run("prepare", None, ["prompts"])
    assert (outcome.success, outcome.failed_asset, outcome.failure) == (False, "prompts", sentence)
    # A loop that was prepared by version 0.1, which did not look.
    prompts = asset_path(runner.loop, "prompts")
    frame = runner.loop.table("prompts")
    prompts.write_bytes(to_parquet(table(frame.assign(split=frame["split"].replace("test", "train")), PROMPTS)))
    for path in (stages.unjudged / "assets").iterdir():
        if path.is_dir():
            shutil.copytree(path, runner.loop.root / "assets" / path.name)
    runner.instance.add_dynamic_partitions("rounds", [ROUND])
    outcome = runner.run("train_round", ROUND, ["evaluation_completions"])
    assert not outcome.success
    assert outcome.failed_asset == "evaluation_completions"
    assert outcome.failure == sentence


def test_labels_that_have_not_come_stop_the_round_with_a_sentence(stages, copy_of) -> None:
    runner = copy_of(stages.prepared, label_store={"simulated_annotators": False})
    runner.instance.add_dynamic_partitions("rounds", [ROUND])
    assert run_missing(runner, "collect_round", ROUND).success
    outcome = run_missing(runner, "train_round", ROUND)
    assert (outcome.success, outcome.failed_asset) == (False, "preference_labels")
    assert outcome.failure == f"{ROUND} has no usable label yet; label its comparisons, then run this again."


def test_a_disk_that_fails_in_the_middle_of_an_asset_fails_it_with_a_sentence(stages, copy_of, monkeypatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error", "/disk/file")

    monkeypatch.setattr(sampling, "draw_prompts", fail)
    runner = copy_of(stages.prepared)
    runner.instance.add_dynamic_partitions("rounds", [ROUND])
    outcome = run_missing(runner, "collect_round", ROUND)
    assert (outcome.success, outcome.failed_asset) == (False, "completions")
    assert outcome.failure == (
        "/disk/file: Input/output error; look whether the disk is well and has room, then run this again."
    )


def test_a_table_of_the_wrong_columns_is_never_written(finished, tmp_path) -> None:
    manager = ParquetFiles(tmp_path)
    frame = pd.read_parquet(asset_path(finished.loop, "prompts"))
    path = tmp_path / "assets" / "prompts.parquet"
    context = dg.build_output_context(asset_key=dg.AssetKey("prompts"))
    manager.handle_output(context, frame)
    with pytest.raises(dg.Failure, match="user missing or unknown"):
        manager.handle_output(context, frame.drop(columns="user"))
    pd.testing.assert_frame_equal(pd.read_parquet(path), frame)
    assert [found.name for found in path.parent.iterdir()] == ["prompts.parquet"]
