"""What `rlhf run` makes again: what is not there, and what is older than what it is made from."""

import shutil
from typing import Any

import pytest
from loops import ROUND, SMALL, TRAIN, assert_one_sentence, checkpoint, open_runner, rlhf_here, run_missing, write_loop

import rlhf_dagster.assets.preferences as preference_assets
from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.jobs import LEARN, RELEASE, ROUND_JOBS
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.errors import UserError

PEOPLE = {"simulated_annotators": False}


def newer_labels(runner: LoopRunner) -> None:
    """One label more in the first round."""
    store = runner.loop.label_store
    store.submit(store.comparisons(ROUND, "train")["comparison_id"].iloc[0], "latecomer", {"best": 0}, seconds=3.0)


def test_what_is_older_than_its_parents_is_made_again(finished, copy_of) -> None:
    """`train_round --again`, killed after the new reward model: everything after it is the old one's."""
    runner = copy_of(finished.loop.root)
    newer_labels(runner)
    assert runner.run("train_round", ROUND, LEARN[:4]).success
    assert runner.missing("train_round", ROUND) == [*TRAIN[4:], *RELEASE]
    assert runner.missing("train_round", ROUND, until="reward_model") == []
    assert runner.missing("collect_round", ROUND) == []
    older = f"reward_model_accuracy of {ROUND} is older than preference_dataset, .* `rlhf run train_"
    with pytest.raises(UserError, match=older):
        open_runner(write_loop(runner.loop.root, label_store=PEOPLE)).require_ready("release_round", ROUND)


def test_what_is_made_again_with_the_same_content_outdates_nothing(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    assert runner.run("prepare", None, ["prompts"]).success
    assert runner.run("train_round", ROUND, ["preference_labels", "preference_dataset"]).success
    assert runner.missing("prepare", None) == []
    assert runner.missing("train_round", ROUND) == []
    assert runner.freshness("train_round", ROUND).kept == {}


def test_a_parent_made_while_an_asset_was_being_made_outdates_it(finished, copy_of, monkeypatch) -> None:
    runner = copy_of(finished.loop.root)
    measure = preference_assets.measure_quality

    def measure_late(*tables: Any) -> Any:
        newer_labels(runner)
        monkeypatch.setattr(preference_assets, "measure_quality", measure)
        assert runner.run("train_round", ROUND, ["preference_labels"]).success
        return measure(*tables)

    monkeypatch.setattr(preference_assets, "measure_quality", measure_late)
    assert runner.run("train_round", ROUND, ["label_quality"]).success
    assert runner.missing("train_round", ROUND)[0] == "label_quality"


@pytest.mark.parametrize("asset", ["preference_labels", "label_quality", "reward_model"])
def test_what_has_lost_its_file_is_made_again(finished, copy_of, asset) -> None:
    runner = copy_of(finished.loop.root)
    suffix = "parquet" if asset == "preference_labels" else "json"
    runner.loop.store.delete(runner.loop.asset_key(asset, ROUND, suffix))
    missing = runner.missing("train_round", ROUND)
    assert missing[0] == asset
    assert missing[-1] == "promotion"


def test_a_model_that_is_gone_is_made_again(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    shutil.rmtree(checkpoint(runner.loop, "reward_model", ROUND).folder)
    assert runner.missing("train_round", ROUND)[:2] == ["reward_model", "reward_model_accuracy"]


def test_a_model_that_is_damaged_is_made_again(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    weights = checkpoint(runner.loop, "ppo_policy", ROUND).folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert runner.missing("train_round", ROUND)[0] == "ppo_policy"


def test_a_pointer_that_is_not_on_record_is_made_again(finished, copy_of) -> None:
    """A process killed between the file and Dagster's record leaves a new model beside an old record."""
    runner = copy_of(finished.loop.root)
    pointer = runner.loop.json("reward_model", ROUND)
    runner.loop.write_json("reward_model", ROUND, pointer | {"digest": "another"})
    assert runner.missing("train_round", ROUND)[0] == "reward_model"


def other_prompts(runner: LoopRunner) -> LoopRunner:
    """The same loop with other prompts, made after its first round."""
    again = open_runner(write_loop(runner.loop.root, data=SMALL["data"] | {"prompts": 300}))
    assert again.run("prepare", None, ["prompts"]).success
    return again


def test_a_decided_round_stays_when_something_outside_of_it_changes(finished, copy_of) -> None:
    runner = other_prompts(copy_of(finished.loop.root))
    for job in ROUND_JOBS:
        assert runner.missing(job, ROUND) == []
    assert runner.freshness("collect_round", ROUND).kept == {"completions": "prompts"}
    kept = runner.freshness("train_round", ROUND).kept
    assert kept["preference_dataset"] == kept["ppo_policy"] == "prompts"
    said = rlhf_here("run", "collect_round", "--loop", runner.loop.root).stdout
    assert said.splitlines()[0] == (
        f"prompts is newer than completions, which stays: {ROUND} is decided, or sent to annotators. "
        "--again makes it again."
    )


def test_what_annotators_were_asked_stays_and_what_is_learned_from_it_does_not(stages, copy_of) -> None:
    runner = other_prompts(copy_of(stages.unjudged))
    assert runner.missing("collect_round", ROUND) == []
    assert runner.missing("train_round", ROUND)[0] == "preference_dataset"


def test_the_models_that_rounds_are_built_on_stay(finished, copy_of) -> None:
    runner = other_prompts(copy_of(finished.loop.root))
    assert runner.missing("prepare", None) == ["demonstration_batch", "demonstrations", "pretraining_text"]
    assert runner.freshness("prepare", None).kept == {
        "base_model": "pretraining_text",
        "sft_checkpoint": "demonstrations",
    }


def test_a_round_that_is_not_collected_is_not_trained(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    open_next_round(runner.instance, runner.loop)
    result = rlhf_here("run", "train_round", "--loop", runner.loop.root)
    assert_one_sentence(result, f"{ROUND} has no round_manifest yet; run `rlhf run collect_round --round {ROUND}")
    again = rlhf_here("run", "train_round", "--again", "--loop", runner.loop.root)
    assert again.stderr == result.stderr


def test_a_round_that_the_gate_refused_is_not_released(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged, gate={"min_win_rate": 0.999})
    assert run_missing(runner, "train_round", ROUND).stopped_by_gate
    result = rlhf_here("run", "release_round", "--loop", runner.loop.root)
    assert_one_sentence(result, f"of {ROUND} was refused by the gate: ", "must be above 99.9%, and is not")
