"""What a round asks, through the real stages of a small loop with everything mixed in."""

import json

import numpy as np
import pandas as pd
import pytest
from loops import ROUND, asset_path, run_missing

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import candidates
from rlhf_dagster.loop.comparisons import reward_gaps, training_comparisons
from rlhf_dagster.loop.labels import send_training_batch
from rlhf_dagster.loop.selection import chosen_by, selecting_model
from rlhf_dagster.records.outcome import best

SHARES = {"gold_share": 0.2, "repeat_share": 0.2, "drift_share": 0.1, "challenger_share": 0.1}
MIXED = {"comparisons_per_round": 40, "held_out_annotators": 0.25, **SHARES}


def silent(*_: object, **__: object) -> None:
    pass


def collect(runner: LoopRunner) -> pd.DataFrame:
    key = open_next_round(runner.instance, runner.loop)
    assert run_missing(runner, "collect_round", key).success
    return pd.read_parquet(asset_path(runner.loop, "preference_batch", key))


@pytest.mark.parametrize(
    "kind", ["pair", "rating", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("best_of_k", "ranking"))]
)
def test_every_kind_goes_from_samples_to_a_trained_reward_model(stages, copy_of, kind) -> None:
    runner = copy_of(stages.prepared, labeling={**MIXED, "kind": kind, "overlap": 0.5})
    batch = collect(runner)
    counts = batch["role"].value_counts().to_dict()
    # No policy was ever trained, so there is nobody to challenge the champion.
    assert counts == {"label": 40, "gold": 8, "repeat": 8, "drift": 4}
    assert run_missing(runner, "train_round", ROUND, until="reward_model_accuracy").success
    preferences = pd.read_parquet(asset_path(runner.loop, "preference_dataset", ROUND))
    trained = batch.loc[batch["role"] == "label", "comparison_id"]
    assert set(preferences["comparison_id"]) <= set(trained)
    quality = json.loads(asset_path(runner.loop, "label_quality", ROUND, "json").read_text())
    summary = quality["summary"]
    assert summary["gold"]["n"] >= 6
    assert summary["consistency"]["n"] >= 6  # repeats go to whoever judged the original
    assert summary["drift"]["n"] + summary["undecided"] >= 4
    assert summary["quarantined"] == {}
    assert (summary["alpha_ordinal"] is not None) == (kind != "best_of_k")


def test_gold_questions_repeats_and_both_orders_are_spread_and_unmarked(stages, copy_of) -> None:
    runner = copy_of(stages.prepared, labeling={**MIXED, "both_orders": True})
    batch = collect(runner).reset_index(drop=True)
    gold = batch[batch["role"] == "gold"]
    assert gold.index.max() - gold.index.min() > 30
    assert all(len(best(ranks)) == 1 for ranks in gold["gold_ranks"])
    place = dict(zip(batch["comparison_id"], batch.index, strict=True))
    again = batch[batch["repeat_of"] != ""]
    assert (again["role"] == "label").sum() == 40
    assert all(place[row.comparison_id] > place[row.repeat_of] for row in again.itertuples())


def test_imported_gold_questions_come_before_the_tasks_own(stages, copy_of, tmp_path) -> None:
    runner = copy_of(stages.prepared, labeling={**MIXED, "gold_share": 0.05})
    file = tmp_path / "gold.jsonl"
    lines = [{"prompt": f"{n} + 1?", "responses": ["no idea", str(n + 1)], "choice": 1} for n in range(5)]
    wrong = [
        {"prompt": "p", "responses": ["a", "b"], "choice": "tie"},
        {"prompt": "p", "responses": ["a"], "choice": 0},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines + wrong))
    report = import_file("gold", file, runner.loop.store)
    assert (report.added, [number for number, _ in report.refused]) == (5, [6, 7])
    assert import_file("gold", file, runner.loop.store).already_there == 5
    batch = collect(runner)
    gold = batch[batch["role"] == "gold"]
    assert len(gold) == 2
    for row in gold.to_dict("records"):
        assert row["responses"][best(row["gold_ranks"])[0]] == str(int(row["prompt"].split()[0]) + 1)


def test_gold_questions_that_no_page_shows_are_refused(stages, copy_of, tmp_path) -> None:
    runner = copy_of(stages.prepared, labeling={**MIXED, "kind": "pair"})
    file = tmp_path / "gold.jsonl"
    file.write_text(json.dumps({"prompt": "1 + 1?", "responses": ["1", "2", "3"], "choice": 1}) + "\n")
    assert import_file("gold", file, runner.loop.store).added == 1
    key = open_next_round(runner.instance, runner.loop)
    outcome = run_missing(runner, "collect_round", key)
    assert (outcome.success, outcome.failed_asset) == (False, "preference_batch")
    assert "has 3 responses, and the pages of this loop show 2" in outcome.failure


def test_the_next_round_is_chosen_by_the_reward_model_and_once(stages, copy_of) -> None:
    settings = {"selection": "margin", "selection_random": 0.25, "comparisons_per_round": 40, "held_out_annotators": 0}
    runner = copy_of(stages.finished, labeling={**settings, "selection_pool": 3.0, "challenger_share": 0.1})
    loop = runner.loop
    batch = collect(runner)
    key = batch["round"].iloc[0]
    completions = pd.read_parquet(asset_path(loop, "completions", key))
    assert completions["prompt_id"].nunique() >= 100
    assert chosen_by(loop, key).startswith("margin of ")
    assert chosen_by(loop, ROUND) == "random, because there is no reward model yet"
    assert len(batch[batch["role"] == "label"]) == 40
    again = training_comparisons(loop, key, completions)
    assert again["comparison_id"].tolist() == batch["comparison_id"].tolist()
    assert send_training_batch(loop, key, completions, silent).sent == 0


def test_heads_that_are_one_cannot_disagree(stages, copy_of) -> None:
    with pytest.raises(UserError, match="a reward model with one head agrees with itself"):
        LoopConfig.parse({"labeling": {"selection": "disagreement"}}, "loop.yaml")
    loop = copy_of(stages.finished, labeling={"selection": "disagreement"}, reward_model={"heads": 3}).loop
    with pytest.raises(UserError, match="was trained with one head; set it to margin or random"):
        selecting_model(loop, "round-0002")


def test_the_heads_choose_what_they_disagree_on(stages, copy_of, monkeypatch) -> None:
    loop = copy_of(stages.finished, labeling={"selection": "disagreement"}, reward_model={"heads": 2}).loop
    model = loop.checkpoint("reward_model", ROUND)
    completions = pd.read_parquet(asset_path(loop, "completions", ROUND))
    rows = candidates(completions, loop.config.labeling, ROUND, 0)[:4]
    torn = rows[2]["responses"]

    def by_heads(opened, prompts, texts, *others) -> np.ndarray:
        return np.array([[1.0, -1.0] if text == torn[0] else [0.0, 0.0] for text in texts])

    monkeypatch.setattr("rlhf_dagster.training.reward.scores.score_by_heads", by_heads)
    gaps = reward_gaps(loop, rows, model)
    assert min(gaps, key=gaps.__getitem__) == rows[2]["comparison_id"]


def test_a_policy_that_was_not_promoted_challenges_the_champion(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged, gate={"min_win_rate": 0.999}, labeling={**MIXED})
    run_missing(runner, "train_round", ROUND)  # the gate stops it
    batch = collect(runner)
    challenges = batch[batch["role"] == "challenger"]
    assert len(challenges) == 4
    challenger = runner.loop.registry.policies()
    for policies in challenges["policy_ids"]:
        assert len(set(policies)) == 2
        assert set(policies) <= set(challenger)


def test_weights_and_filters_reach_the_snapshot(stages, copy_of) -> None:
    labeling = {**MIXED, "weights": "competence", "overlap": 1.0}
    runner = copy_of(stages.prepared, labeling=labeling)
    collect(runner)
    assert run_missing(runner, "train_round", ROUND, until="preference_dataset").success
    frame = pd.read_parquet(asset_path(runner.loop, "preference_dataset", ROUND))
    train = frame[frame["split"] == "train"]
    assert (train.groupby("annotator")["weight"].nunique() == 1).all()
    assert train["weight"].nunique() > 3
