"""What the terminal says of an asset that was made."""

import io
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from rich.console import Console

from rlhf_dagster.cli.console import RunView
from rlhf_dagster.cli.data.imports import RowsRead


def said(asset: str, **metadata: Any) -> str:
    """The lines of a materialisation with this metadata."""
    console = Console(record=True, width=400, file=io.StringIO())
    values = {name.replace("rows", "dagster/row_count"): value for name, value in metadata.items()}
    made = dg.AssetMaterialization(asset, metadata=values)
    event = SimpleNamespace(
        step_key=asset,
        event_type=dg.DagsterEventType.ASSET_MATERIALIZATION,
        step_materialization_data=SimpleNamespace(materialization=made),
    )
    RunView(console).event(event)  # type: ignore[arg-type]
    return console.export_text()


def test_what_is_not_trained_on_is_said_with_its_reasons() -> None:
    line = said("preference_dataset", train_labels=30, not_trained_on=10, why_not="8 on prompts held out, 2 skipped")
    assert "train labels 30, not trained on 10, which are 8 on prompts held out, 2 skipped" in line


def test_what_is_cut_is_counted_in_whole_numbers_for_every_asset() -> None:
    line = said("reward_model", model_id="reward-1", cut_responses=1234.0, equal_comparisons=2.0)
    assert "cut responses 1,234, equal comparisons 2" in line
    assert "cut prompts 5" in said("completions", rows=8, cut_prompts=5.0)
    assert "cut" not in said("sft_checkpoint", model_id="sft-1")


def test_demonstrations_of_the_test_split_are_counted() -> None:
    assert "rows 12, left out of test 3" in said("demonstrations", rows=12, left_out_of_test=3)


def check_said(passed: bool, description: str, blocking: bool = False, warned: str = "") -> str:
    """The lines about a check, after an asset that has warned of something."""
    console = Console(record=True, width=400, file=io.StringIO())
    view, key = RunView(console), dg.AssetKey("prompts")
    metadata = {"warnings": dg.MetadataValue.md(warned)} if warned else {}
    made = SimpleNamespace(materialization=dg.AssetMaterialization(key, metadata=metadata))
    check = SimpleNamespace(check_name="a_check", passed=passed, description=description, blocking=blocking)
    for kind, data in (
        ("ASSET_MATERIALIZATION", {"step_materialization_data": made}),
        ("ASSET_CHECK_EVALUATION", {"asset_check_evaluation_data": check}),
    ):
        event = SimpleNamespace(step_key="prompts", event_type=dg.DagsterEventType[kind], **data)
        view.event(event)  # type: ignore[arg-type]
    return "\n".join(line for line in console.export_text().splitlines() if "a_check" in line)


def test_a_check_that_stops_nothing_is_said_where_it_warns_of_something_new() -> None:
    assert check_said(True, "All is well.") == ""
    assert check_said(False, "Ten prompts are equal.") == "- a_check: Ten prompts are equal."
    assert check_said(True, "Every rule is met.", blocking=True).split() == ["a_check", "passed"]
    assert check_said(False, "Ten prompts are equal.", warned="- One.\n- Ten prompts are equal.") == ""
    assert check_said(False, "Ten are equal.", warned="- One.") == "- a_check: Ten are equal."


def test_an_import_is_silent_unless_it_takes_longer_than_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    quick, slow = RowsRead(every=1e9), RowsRead(every=0.0)
    for listener in (quick, slow):
        listener("import", 1_000, 0, {})
        listener("import", 1_500, 1_500, {})
    shown = capsys.readouterr()
    assert shown.err == "1,000 rows: read ...\n1,500 rows: all are read, and are kept now ...\n"
    assert shown.out == ""
