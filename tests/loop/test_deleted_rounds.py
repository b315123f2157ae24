"""A deleted round: its labels train nothing, its number is not used again, and what is not decided is asked."""

import json

import dagster as dg
import pytest
from loops import ROUND, assert_one_sentence, open_runner, rlhf_here

from rlhf_dagster.assets.rounds import next_round, open_next_round, open_rounds, rounds
from rlhf_dagster.automation.sensors import new_labels
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.deletions import Deletions
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import unsettled_rounds, unsettled_sentence
from rlhf_dagster.storage.known import open_store

SECOND = "round-0002"


def decide(command: str, runner: LoopRunner, round_key: str = ROUND, reason: str = "a bot labelled it") -> str:
    arguments = ("--loop", runner.loop.root, "--by", "ada", "--reason", reason)
    result = rlhf_here("round", command, round_key, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def trained_on(runner: LoopRunner) -> set[str]:
    """The rounds in the second round's data set, made anew."""
    assert runner.run("train_round", SECOND, ["preference_dataset"]).success
    return set(runner.loop.table("preference_dataset", SECOND)["round"])


def delete_partition(runner: LoopRunner, key: str = ROUND) -> None:
    runner.instance.delete_dynamic_partition(str(rounds.name), key)


def test_labels_of_a_deleted_round_train_nothing_until_it_is_back(two_rounds, copy_of) -> None:
    runner = copy_of(two_rounds.loop.root)
    said = decide("delete", runner)
    assert said.splitlines()[0] == f"{ROUND} is deleted by ada: a bot labelled it"
    usable = runner.loop.ledger.count(ROUND, "train").usable
    assert f"Its {usable} usable labels train nothing from now on" in said
    assert open_rounds(runner.instance, runner.loop) == [SECOND]
    assert trained_on(runner) == {SECOND}
    decide("restore", runner, reason="it was no bot")
    assert open_rounds(runner.instance, runner.loop) == [ROUND, SECOND]
    assert trained_on(runner) == {ROUND, SECOND}
    assert [entry.deleted for entry in runner.loop.deletions.entries()] == [True, False]


def test_nothing_is_made_of_a_deleted_round_whose_partition_is_added_again(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    decide("delete", runner)
    runner.instance.add_dynamic_partitions(str(rounds.name), [ROUND])
    outcome = runner.run("train_round", ROUND, ["preference_labels"])
    assert not outcome.success
    assert f"{ROUND} was deleted on " in outcome.failure
    assert f"`rlhf round restore {ROUND}" in outcome.failure


def test_the_number_of_a_round_is_never_used_twice(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    decide("delete", runner)
    assert open_next_round(runner.instance, runner.loop) == SECOND
    delete_partition(runner, SECOND)  # nothing was made of it
    assert next_round(runner.instance, runner.loop) == SECOND
    runner.loop.registry.pin(SECOND)
    assert next_round(runner.instance, runner.loop) == "round-0003"


def test_a_partition_deleted_in_the_ui_keeps_its_number_and_is_asked_about(two_rounds, copy_of) -> None:
    runner = copy_of(two_rounds.loop.root)
    assert unsettled_rounds(runner.loop, open_rounds(runner.instance, runner.loop)) == []
    delete_partition(runner)
    delete_partition(runner, SECOND)
    assert next_round(runner.instance, runner.loop) == "round-0003"
    runner.instance.add_dynamic_partitions(str(rounds.name), [SECOND])
    result = rlhf_here("round", "status", "--loop", runner.loop.root, "--json")
    assert [row["round"] for row in json.loads(result.stdout)] == [SECOND]
    for command in ("delete", "restore"):
        assert f"`rlhf round {command} {ROUND} --loop {runner.loop.root} --reason WHY`" in result.stderr
    assert trained_on(runner) == {SECOND}
    decide("restore", runner)
    assert unsettled_sentence(runner.loop, open_rounds(runner.instance, runner.loop)) == ""
    assert trained_on(runner) == {ROUND, SECOND}


def test_a_tick_says_which_rounds_are_not_decided_on(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    delete_partition(runner)
    context = dg.build_sensor_context(runner.instance, resources={"loop": runner.loop})
    result = new_labels(runner.loop.config.automation)(context)
    assert f"{ROUND} has no partition in Dagster any more" in result.skip_reason.skip_message
    decide("delete", runner)
    result = new_labels(runner.loop.config.automation)(context)
    assert "no partition" not in result.skip_reason.skip_message


def test_a_deletion_needs_a_name_and_a_reason(tmp_path) -> None:
    deletions = Deletions(open_store(str(tmp_path)))
    for by, reason in (("", "a bot"), ("ada", " ")):
        with pytest.raises(UserError, match="stay on record"):
            deletions.delete(ROUND, by, reason)
    assert deletions.entries() == []


def test_rounds_that_never_were_and_rounds_that_are_there(stages, copy_of) -> None:
    runner = copy_of(stages.unjudged)
    loop = runner.loop.root
    unknown = rlhf_here("round", "delete", SECOND, "--loop", loop, "--reason", "x")
    assert_one_sentence(unknown, f"There is no round {SECOND}; there are {ROUND}")
    there = rlhf_here("round", "restore", ROUND, "--loop", loop, "--reason", "x")
    assert_one_sentence(there, f"{ROUND} is there")
    decide("delete", runner)
    twice = rlhf_here("round", "delete", ROUND, "--loop", loop, "--reason", "x")
    assert_one_sentence(twice, f"{ROUND} was deleted on ", "by ada: a bot labelled it")
    assert open_rounds(open_runner(loop).instance, runner.loop) == []


def test_a_round_that_only_the_ledger_knows_keeps_its_number(tmp_path) -> None:
    from batches import send

    loop = LoopFolder(LoopConfig(), tmp_path)
    send(loop, 1, ROUND)
    with dg.DagsterInstance.ephemeral() as instance:
        assert next_round(instance, loop) == SECOND
