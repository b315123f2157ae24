"""What a loop is given and does not use is counted, and said in `rlhf round status`."""

import json

import pandas as pd
import pytest
from loops import ROUND, asset_path, checkpoint, read_record, rlhf_here, write_record

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.loop.guards.left_out import (
    data_notices,
    demonstration_notices,
    left_out_of_round,
    left_out_sentences,
    preference_notices,
    prompt_notices,
)
from rlhf_dagster.loop.labels import snapshot_preferences


def splits(**sizes: int) -> pd.DataFrame:
    return pd.DataFrame({"split": [split for split, n in sizes.items() for _ in range(n)]})


def test_every_label_of_a_round_is_accounted_for(finished) -> None:
    loop = finished.loop
    found, stated = left_out_of_round(loop, ROUND), loop.json("preference_dataset", ROUND)
    assert found["trained_on"] == (loop.table("preference_dataset", ROUND)["split"] == "train").sum()
    assert found["not_trained_on"]
    assert found["trained_on"] + sum(found["not_trained_on"].values()) == stated["labels"]["labels"]
    assert left_out_of_round(loop, "round-0009") == {}


def test_what_is_skipped_undecided_unreadable_or_of_test_prompts_is_counted(finished, copy_of) -> None:
    from rlhf_dagster.labeling.store import Submission

    loop = copy_of(finished.loop.root).loop
    comparisons = loop.label_store.comparisons(ROUND, "train")
    labels, prompts = loop.table("preference_labels", ROUND), loop.table("prompts")
    before = left_out_of_round(loop, ROUND)["not_trained_on"]
    asked = comparisons["comparison_id"].iloc[0]
    loop.label_store.submit_many([Submission(asked, "vandal", {"best": ["nonsense"]}, 1.0, None)])
    from rlhf_dagster.loop.labels import read_labels

    read_labels(loop, ROUND, "train")  # which puts the vandal's into quarantine
    about = labels["comparison_id"] == asked
    labels.loc[about, "status"] = "skipped"
    judged = loop.table("preference_dataset", ROUND)
    target = judged.loc[(judged["split"] == "train") & (judged["comparison_id"] != asked), "prompt_id"].iloc[0]
    prompts.loc[prompts["prompt_id"] == target, "split"] = "test"
    snapshot_preferences(loop, ROUND, labels, comparisons, prompts)
    found = left_out_of_round(loop, ROUND)["not_trained_on"]
    assert found["unreadable"] == 1
    assert found["skipped"] == about.sum() > 0
    assert found["test_prompt"] > before.get("test_prompt", 0)


def test_a_snapshot_without_a_label_to_train_on_is_one_sentence_with_the_reasons(finished) -> None:
    loop = finished.loop
    labels, comparisons = loop.table("preference_labels", ROUND), loop.table("preference_batch", ROUND)
    prompts = loop.table("prompts").assign(split="test")
    with pytest.raises(UserError) as refused:
        snapshot_preferences(loop, ROUND, labels, comparisons, prompts)
    n, usable = len(labels), len(usable_labels(labels))
    said = f"0 of {n} labels are trained on; not {usable} on prompts of the test split, {n - usable} that name no best "
    assert str(refused.value).startswith(f"There is no label to train on in {ROUND}: {said}")


def test_status_says_what_was_left_out_and_cut(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    path = checkpoint(loop, "reward_model", ROUND).folder / "manifest.json"
    content = read_record(path)
    content["metrics"] |= {"cut_responses": 3.0, "equal_comparisons": 1.0}
    write_record(path, content)
    loop.write_json("demonstrations", "", {"left_out_of_test": 7})
    shown = " ".join(rlhf_here("round", "status", "--loop", loop.root).stdout.split())
    counts = left_out_of_round(loop, ROUND)
    assert f"{ROUND}: {counts['trained_on']} of " in shown
    assert f"{ROUND}: reward_model has 3 cut responses, 1 equal comparisons." in shown
    assert "7 demonstrations are of the test split, by their prompt or user, and are left out." in shown
    (row,) = json.loads(rlhf_here("round", "status", "--loop", loop.root, "--json").stdout)
    assert row["left_out"] == counts
    assert row["left_out"]["reward_model"] == {"cut_responses": 3, "equal_comparisons": 1}


def test_of_this_loop_s_data_only_the_cut_demonstrations_are_to_be_told(finished) -> None:
    (said,) = data_notices(finished.loop)
    assert said.startswith("96 of 96 responses are longer than sampling.response_tokens, and were cut")
    assert list(left_out_sentences({})) == []


def test_empty_splits_are_said() -> None:
    config = LoopConfig()
    assert prompt_notices(config, splits(train=500, validation=1, test=385)) == []
    assert prompt_notices(config, splits(train=500, test=385)) == [
        "None of 885 prompts is in the validation split (data.validation)."
    ]
    assert prompt_notices(config, splits(validation=1, test=200)) == [
        "evaluation.precision 0.05 takes 385 prompts, and the test split has 200: intervals of win rates by people "
        "will be wider."
    ]
    asked_for = LoopConfig.parse({"data": {"validation": 0}, "labeling": {"validation": 0}}, "")
    assert prompt_notices(asked_for, splits(train=500, test=385)) == []
    assert len(demonstration_notices(splits(train=5), 0)) == 1
    assert demonstration_notices(splits(train=5, validation=1), 0) == []
    assert preference_notices(config, splits(train=5)) == [
        "None of 5 labels is in the validation split (labeling.validation)."
    ]
    assert preference_notices(asked_for, splits(train=5)) == []


def test_demonstrations_of_test_prompts_are_counted_in_the_asset_s_record(finished) -> None:
    assert finished.loop.json("demonstrations") == {"left_out_of_test": 0}
    assert asset_path(finished.loop, "demonstrations", suffix="json").is_file()
