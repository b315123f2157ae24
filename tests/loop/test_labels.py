import json

import pandas as pd
import pyarrow.parquet as pq
from loops import ROUND, asset_path, checkpoint, run_missing

from rlhf_dagster.assets.rounds import open_import_round
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import (
    counts_behind,
    label_counts,
    read_labels,
    read_rounds,
    send_evaluation_batch,
    send_training_batch,
    snapshot_preferences,
)
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import QUARANTINE


def silent(*_: object, **__: object) -> None:
    pass


def test_sending_a_batch_again_adds_nothing(stages, copy_of) -> None:
    loop = copy_of(stages.unjudged).loop
    before = loop.label_store.count(ROUND, "train")
    completions = pd.read_parquet(asset_path(loop, "completions", ROUND))
    batch = send_training_batch(loop, ROUND, completions, silent)
    assert (batch.sent, batch.already_there) == (0, 40)
    assert loop.label_store.count(ROUND, "train") == before
    assert batch.comparisons["comparison_id"].tolist() == (
        pd.read_parquet(asset_path(loop, "preference_batch", ROUND))["comparison_id"].tolist()
    )


def test_simulated_annotators_answer_nothing_where_people_label(stages, copy_of) -> None:
    loop = copy_of(stages.unjudged, label_store={"simulated_annotators": False}).loop
    completions = pd.read_parquet(asset_path(loop, "evaluation_completions", ROUND))
    batch = send_evaluation_batch(loop, ROUND, completions, silent)
    assert batch.sent == len(batch.comparisons) > 0
    assert loop.label_store.count(ROUND, "evaluation").labels == 0


def test_an_evaluation_batch_is_shared_between_the_two_opponents(two_rounds) -> None:
    comparisons = pd.read_parquet(asset_path(two_rounds.loop, "evaluation_batch", "round-0002"))
    pairs = comparisons["policy_ids"].map(frozenset).value_counts()
    policy = two_rounds.loop.registry.champion().policy_id
    assert len(pairs) == 2
    assert all(policy in pair for pair in pairs.index)
    assert pairs.tolist() == [12, 12]


def test_the_snapshot_accumulates_rounds(two_rounds) -> None:
    loop = two_rounds.loop
    first, second = (pd.read_parquet(asset_path(loop, "preference_dataset", key)) for key in (ROUND, "round-0002"))
    assert set(first["round"]) == {ROUND}
    assert set(second["round"]) == {ROUND, "round-0002"}
    assert _only_held_out_leave(first, second)
    for frame in (first, second):
        assert frame["label_id"].is_unique
        train = frame[frame["split"] == "train"]
        held_out = frame[frame["split"] == "held_out_annotators"]
        assert not set(train["annotator"]) & set(held_out["annotator"])
        assert not set(train["comparison_id"]) & set(held_out["comparison_id"])


def _only_held_out_leave(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Labels of the first round leave the snapshot only where their comparison or annotator is held out now."""
    gone = first[~first["label_id"].isin(second["label_id"])]
    held_out = second[second["split"] == "held_out_annotators"]
    return bool((gone["comparison_id"].isin(held_out["comparison_id"]) | (gone["split"] != "train")).all())


def tables(loop: LoopFolder, key: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Labels and comparisons of a round, and the prompts."""
    of_round = [pd.read_parquet(asset_path(loop, name, key)) for name in ("preference_labels", "preference_batch")]
    return of_round[0], of_round[1], pd.read_parquet(asset_path(loop, "prompts"))


def test_a_rerun_of_an_old_round_does_not_see_later_labels(two_rounds) -> None:
    loop = two_rounds.loop
    again, _ = snapshot_preferences(loop, ROUND, *tables(loop, ROUND))
    kept = pd.read_parquet(asset_path(loop, "preference_dataset", ROUND))
    assert again["label_id"].tolist() == kept["label_id"].tolist()
    assert again["split"].tolist() == kept["split"].tolist()


def test_what_was_labelled_late_or_deleted_in_an_earlier_round_counts(two_rounds, copy_of) -> None:
    loop = copy_of(two_rounds.loop.root).loop
    given, comparisons, prompts = tables(loop, "round-0002")
    before, _ = snapshot_preferences(loop, "round-0002", given, comparisons, prompts)
    gone = before[before["round"] == ROUND].iloc[0]
    loop.label_store.delete(gone["comparison_id"], gone["annotator"])
    old = loop.label_store.comparisons(ROUND, "train")["comparison_id"].iloc[0]
    loop.label_store.submit(old, "latecomer", {"best": 0}, seconds=3.0)
    after, _ = snapshot_preferences(loop, "round-0002", given, comparisons, prompts)
    assert gone["label_id"] not in set(after["label_id"])
    counts = loop.json("preference_dataset", "round-0002")["labels"]
    assert counts == label_counts(read_rounds(loop, [ROUND, "round-0002"]))
    assert counts["by_round"][0]["labels"] == len(tables(loop, ROUND)[0])
    assert counts["annotators"] == given["annotator"].nunique() + 1


def test_counts_of_another_snapshot_are_not_reported(finished, copy_of) -> None:
    """A process that is killed after it has written the counts leaves the table of before."""
    loop = copy_of(finished.loop.root).loop
    right = counts_behind(loop, ROUND)
    stated = loop.json("preference_dataset", ROUND)
    assert stated["labels"] == right
    wrong = {"labels": right | {"usable": 1}}
    loop.write_json("preference_dataset", ROUND, stated | wrong)
    assert counts_behind(loop, ROUND)["usable"] == 1  # what is stated of this snapshot counts
    loop.write_json("preference_dataset", ROUND, stated | wrong | {"snapshot": "another"})
    assert counts_behind(loop, ROUND) == right
    asset_path(loop, "preference_dataset", ROUND, "json").unlink()
    assert counts_behind(loop, ROUND) == right


def test_labels_about_test_prompts_are_left_out_and_counted(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    labels, comparisons, prompts = tables(loop, ROUND)
    judged = pd.read_parquet(asset_path(loop, "preference_dataset", ROUND))
    target = judged["prompt_id"].iloc[0]
    prompts.loc[prompts["prompt_id"] == target, "split"] = "test"
    frame, summary = snapshot_preferences(loop, ROUND, labels, comparisons, prompts)
    assert target not in set(frame["prompt_id"])
    batch = comparisons.set_index("comparison_id")
    assert summary["on_test_prompts"] == (batch.loc[labels["comparison_id"], "prompt_id"] == target).sum() > 0


def test_imported_judgments_are_round_zero_and_train_with_the_first_round(stages, copy_of, tmp_path) -> None:
    runner = copy_of(stages.unjudged)
    loop = runner.loop
    prompts = pd.read_parquet(asset_path(loop, "prompts"))
    known = prompts[prompts["split"] != "validation"].groupby("split").head(6)
    lines = [
        {"comparison": f"c{n}", "prompt": text, "responses": ["the plot was good .", "the plot was bad ."]}
        | {"annotator": f"person {n % 4}", "choice": 0}
        for n, text in enumerate(known["text"])
    ]
    file = tmp_path / "judgments.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert import_file("judgments", file, loop.store, loop.label_store).added == 12
    key = open_import_round(runner.instance, runner.loop)
    assert key == IMPORT_ROUND
    assert run_missing(runner, "collect_round", key).success
    assert run_missing(runner, "train_round", key, until="preference_dataset").success
    imported = pd.read_parquet(asset_path(loop, "preference_dataset", key))
    assert set(imported["prompt_id"]) <= set(known.loc[known["split"] == "train", "prompt_id"])
    assert not imported.empty
    assert runner.run("train_round", ROUND, ["preference_dataset"]).success
    both = pd.read_parquet(asset_path(loop, "preference_dataset", ROUND))
    assert set(both["round"]) == {IMPORT_ROUND, ROUND}


def test_an_annotation_that_cannot_be_parsed_is_quarantined(stages, copy_of) -> None:
    from rlhf_dagster.labeling.store import Submission

    loop = copy_of(stages.unjudged).loop
    comparison = loop.label_store.comparisons(ROUND, "train")["comparison_id"].iloc[0]
    labels, _ = read_labels(loop, ROUND, "train")
    loop.label_store.submit_many([Submission(comparison, "vandal", {"best": ["nonsense"]}, 1.0, None)])
    again, quarantined = read_labels(loop, ROUND, "train")
    assert (len(again), quarantined) == (len(labels), 1)
    table = pq.read_table(loop.root / "quarantine" / f"train-{ROUND}.parquet")
    assert table.schema.equals(QUARANTINE)
    row = table.to_pylist()[0]
    assert (row["comparison_id"], row["annotator"]) == (comparison, "vandal")
    assert row["problem"]


def test_the_snapshot_has_the_tokens_that_the_policy_drew(finished) -> None:
    loop = finished.loop
    snapshot, completions, batch = (
        pd.read_parquet(asset_path(loop, asset, ROUND))
        for asset in ("preference_dataset", "completions", "preference_batch")
    )
    tokenizer = tokenizer_digest(checkpoint(loop, "sft_checkpoint").folder)
    assert set(completions["tokenizer"]) == {tokenizer}
    drawn = dict(zip(completions["completion_id"], completions["token_ids"], strict=True))
    ids = dict(zip(batch["comparison_id"], batch["completion_ids"], strict=True))
    assert len(snapshot)
    for row in snapshot.to_dict("records"):
        assert set(row["tokenizers"]) == {tokenizer}
        expected = [drawn[name].tolist() for name in ids[row["comparison_id"]]]
        assert [tokens.tolist() for tokens in row["token_ids"]] == expected


def test_a_batch_of_version_0_1_is_learned_by_its_texts(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    labels, batch = (
        pd.read_parquet(asset_path(loop, asset, ROUND)) for asset in ("preference_labels", "preference_batch")
    )
    prompts = pd.read_parquet(asset_path(loop, "prompts"))
    old = batch.drop(columns=["token_ids", "tokenizers"])
    now, then = (snapshot_preferences(loop, ROUND, labels, frame, prompts)[0] for frame in (batch, old))
    assert then["token_ids"].isna().all()
    assert snapshot_hash(now) == snapshot_hash(then)
