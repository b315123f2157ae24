"""A round that a judge's model labels beside simulated annotators, from the batch to the pages."""

import json
from collections.abc import Callable
from io import StringIO

import pandas as pd
import pytest
from judge_server import judging, says, texts_in
from loops import ROUND, Stages, asset_path, run_missing
from rich.console import Console

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.cli.tables import rounds_table
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.labels import label_counts, read_rounds, send_training_batch, snapshot_preferences
from rlhf_dagster.loop.round_page import write_round_page
from rlhf_dagster.loop.summary import round_rows
from rlhf_dagster.pages.annotators import machine_rows
from rlhf_dagster.pages.server import ROUNDS_PAGE

JUDGE = {"model": "judge-1", "both_orders": False, "service": {"retries": 0}}
ASSETS = ["preference_batch", "preference_labels", "label_quality", "preference_dataset"]


def silent(*_: object, **__: object) -> None:
    pass


def test_a_judge_labels_beside_people_and_is_shown_as_a_machine(
    stages: Stages, copy_of: Callable[..., LoopRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copy_of(stages.unjudged).loop
    people = label_counts(read_rounds(before, [ROUND]))
    runner = copy_of(stages.unjudged, labeling={"judge": JUDGE})
    loop = runner.loop
    with judging(lambda _: says('{"best": 0}'), monkeypatch) as server:
        assert runner.run("collect_round", ROUND, ASSETS[:1]).success
        assert len(server.asked) == 40
        assert runner.run("train_round", ROUND, ASSETS[1:]).success
        assert len(server.asked) == 40
    counts = label_counts(read_rounds(loop, [ROUND]))
    assert counts["machine"] == 40
    assert {name: counts[name] for name in people if name != "by_round"} == {
        name: people[name] for name in people if name != "by_round"
    }
    quality = loop.json("label_quality", ROUND)
    assert quality is not None
    (machine,) = quality["summary"]["machines"]
    assert (machine["annotator"], machine["labels"]) == ("machine:judge", 40)
    assert machine["agreement"]["n"] >= 20
    assert not any(row["annotator"].startswith("machine:") for row in quality["annotators"])
    dataset = pd.read_parquet(asset_path(loop, "preference_dataset", ROUND))
    by_machine = dataset[dataset["annotator"] == "machine:judge"]
    assert set(by_machine["split"]) == {"train"}
    write_round_page(loop, [ROUND])
    page = loop.store.get(ROUNDS_PAGE)
    assert page is not None
    assert b"Machines that label" in page.data
    assert page.data.count(b"machine:judge") == 1
    assert b"40 by machines" in page.data
    (row,) = round_rows(loop, [ROUND])
    assert (row["labels"], row["labels_by_machines"]) == (people["labels"], 40)
    Console(width=100, file=(shown := StringIO())).print(rounds_table([row]))
    assert "40 machine" in shown.getvalue()


def test_a_round_that_nobody_but_a_judge_labels(
    stages: Stages, copy_of: Callable[..., LoopRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"judge": JUDGE | {"instead_of_people": True}, "validation": 0.3}
    runner = copy_of(stages.prepared, labeling=settings)
    from rlhf_dagster.assets.rounds import open_next_round

    key = open_next_round(runner.instance, runner.loop)
    rates = {"best": 0}
    with judging(lambda asked: says(json.dumps(rates | {"n": len(texts_in(asked)["responses"])})), monkeypatch):
        assert run_missing(runner, "collect_round", key).success
        counts = runner.loop.label_store.count(key, "train")
        assert (counts.complete, counts.usable, counts.machine) == (counts.comparisons,) * 3
        assert run_missing(runner, "train_round", key, until="preference_dataset").success
    dataset = pd.read_parquet(asset_path(runner.loop, "preference_dataset", key))
    assert set(dataset["annotator"]) == {"machine:judge"}
    assert set(dataset["split"]) == {"train", "validation"}


def test_a_judge_that_is_away_leaves_the_batch_with_people(
    stages: Stages, copy_of: Callable[..., LoopRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = copy_of(stages.unjudged, labeling={"judge": JUDGE}).loop
    completions = pd.read_parquet(asset_path(loop, "completions", ROUND))
    with (
        judging(lambda _: (503, "down"), monkeypatch),
        pytest.raises(UserError, match="status 503: down; given up after one try"),
    ):
        send_training_batch(loop, ROUND, completions, silent)
    assert loop.label_store.count(ROUND, "train").machine == 0
    with judging(lambda _: says('{"best": 0}'), monkeypatch):
        send_training_batch(loop, ROUND, completions, silent)
    assert loop.label_store.count(ROUND, "train").machine == 40


def test_a_judge_without_weight_is_only_compared(
    stages: Stages, copy_of: Callable[..., LoopRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = copy_of(stages.unjudged, labeling={"judge": JUDGE | {"weight": 0}}).loop
    completions = pd.read_parquet(asset_path(loop, "completions", ROUND))
    with judging(lambda _: says('{"best": 0}'), monkeypatch):
        send_training_batch(loop, ROUND, completions, silent)
    (read,) = read_rounds(loop, [ROUND])
    prompts = pd.read_parquet(asset_path(loop, "prompts"))
    frame, _ = snapshot_preferences(loop, ROUND, read.labels, read.comparisons, prompts)
    assert "machine:judge" not in set(frame["annotator"])


def test_figures_of_machines_are_pooled_over_rounds() -> None:
    def figures(value: float, n: int) -> dict[str, object]:
        rate = {"value": value, "low": 0.0, "high": 1.0, "n": n}
        first = rate | {"chance": value}
        return {"annotator": "machine:x", "labels": n, "agreement": rate, "gold": None, "first_position": first}

    (row,) = machine_rows({"round-0002": [figures(0.5, 10)], "round-0001": [figures(1.0, 30)]})
    assert (row.annotator, row.rounds, row.latest, row.labels, row.gold) == ("machine:x", 2, "round-0002", 40, None)
    assert row.agreement is not None
    assert (row.agreement["value"], row.agreement["n"]) == (35 / 40, 40)
    assert row.first_position is not None
    assert row.first_position["chance"] == pytest.approx(0.875)
