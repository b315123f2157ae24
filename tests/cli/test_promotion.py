"""`rlhf promote` and `rlhf rollback`."""

import json
from typing import Any

import pytest
from loops import (
    ROUND,
    assert_one_sentence,
    asset_path,
    checkpoint,
    evaluate_as_too_far_from_sft,
    rlhf_here,
    run_missing,
)

from rlhf_dagster.cli.promotion import promote_policy, refuse_policy, roll_back
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.round_state import round_state


def champion(runner: LoopRunner) -> str:
    record = runner.loop.registry.champion()
    assert record
    return record.policy_id


def policy(runner: LoopRunner) -> str:
    return checkpoint(runner.loop, "ppo_policy", ROUND).model_id


def decision(runner: LoopRunner) -> dict[str, Any]:
    return json.loads(asset_path(runner.loop, "promotion", ROUND, "json").read_text())


@pytest.fixture
def waiting(stages, copy_of) -> LoopRunner:
    """A loop whose policy has passed the gate and waits for a person."""
    runner = copy_of(stages.unjudged, gate={"approval": True})
    assert run_missing(runner, "train_round", ROUND).success
    found = decision(runner)
    assert (found["promoted"], found["outcome"]) == (False, "waiting for approval")
    assert champion(runner).startswith("sft-")
    return runner


@pytest.fixture
def refused(stages, copy_of) -> LoopRunner:
    """A loop whose policy failed the gate, before anybody was asked to judge it."""
    runner = copy_of(stages.unjudged, gate={"max_kl": 1e-6})
    evaluate_as_too_far_from_sft(runner, ROUND)
    return runner


def test_an_approval_promotes_what_waits_for_it(waiting, capsys) -> None:
    promote_policy(waiting.loop.root, None, "ada", "I read 50 samples", anyway=False)
    found = decision(waiting)
    assert (found["promoted"], found["outcome"], champion(waiting)) == (True, "pass", policy(waiting))
    (approval,) = waiting.loop.registry.approvals()
    assert (approval.round_key, approval.policy_id, approval.by) == (ROUND, policy(waiting), "ada")
    record = waiting.loop.registry.history()[-1]
    assert (record.by, record.reason) == ("ada", "I read 50 samples")
    shown = capsys.readouterr().out
    assert f"{policy(waiting)} of {ROUND} is the champion: by ada, I read 50 samples" in shown
    assert "against the gate" not in shown
    with pytest.raises(UserError, match="already the champion"):
        promote_policy(waiting.loop.root, ROUND, "ada", "again", anyway=False)


def test_a_refusal_is_a_decision_whatever_the_gate_says(waiting, capsys) -> None:
    refuse_policy(waiting.loop.root, None, "ben", "it swears")
    assert (decision(waiting)["outcome"], decision(waiting)["reasons"]) == ("fail", ["Refused by ben: it swears"])
    assert f"{policy(waiting)} of {ROUND} is refused: by ben, it swears" in capsys.readouterr().out
    assert champion(waiting).startswith("sft-")
    assert round_state(waiting.loop, ROUND).phase == "refused"
    again = rlhf_here("refuse", "--loop", waiting.loop.root, "--reason", "once more")
    assert_one_sentence(again, "is refused already: Refused by ben: it swears")


def test_the_gates_no_is_an_error_that_says_why(refused) -> None:
    result = rlhf_here("promote", "--loop", refused.loop.root, "--by", "ada", "--reason", "I like it")
    assert_one_sentence(result, "The gate says fail", "over the budget of 1e-06", "--anyway")
    assert refused.loop.registry.approvals() == []
    assert champion(refused).startswith("sft-")


def test_anyway_promotes_against_the_gate_on_record(refused, capsys) -> None:
    promote_policy(refused.loop.root, ROUND, "ada", "the budget is a typing error", anyway=True)
    assert champion(refused) == policy(refused)
    assert refused.loop.registry.history()[-1].reason == "against the gate: the budget is a typing error"
    assert decision(refused)["outcome"] == "fail"
    assert "over the budget of 1e-06" in capsys.readouterr().out


def test_a_round_without_a_report_cannot_be_promoted(stages) -> None:
    for arguments, parts in (((), ["No round has an evaluated policy"]), (("--round", ROUND), [ROUND, "no evaluated"])):
        result = rlhf_here("promote", "--loop", stages.prepared, "--reason", "x", *arguments)
        assert_one_sentence(result, *parts)


@pytest.mark.parametrize(("by", "reason"), [("", "good"), ("ada", " ")])
def test_who_and_why_are_needed(waiting, by: str, reason: str) -> None:
    with pytest.raises(UserError, match="on record"):
        promote_policy(waiting.loop.root, ROUND, by, reason, anyway=False)
    with pytest.raises(UserError, match="on record"):
        refuse_policy(waiting.loop.root, ROUND, by, reason)
    with pytest.raises(UserError, match="on record"):
        roll_back(waiting.loop.root, None, by, reason)
    assert waiting.loop.registry.approvals() == []


def test_rollback_returns_to_the_champion_before(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    sft = checkpoint(runner.loop, "sft_checkpoint").model_id
    result = rlhf_here("rollback", "--loop", runner.loop.root, "--by", "ada", "--reason", "it swears")
    assert result.returncode == 0, result.stderr
    assert f"old champion  {policy(runner)}" in result.stdout
    assert f"new champion  {sft}" in result.stdout
    record = runner.loop.registry.history()[-1]
    assert (record.policy_id, record.action, record.by, record.reason) == (sft, "rollback", "ada", "it swears")
    again = rlhf_here("rollback", "--loop", runner.loop.root, "--reason", "once more")
    assert_one_sentence(again, "no earlier champion")
    with pytest.raises(UserError, match="gave way"):
        promote_policy(runner.loop.root, ROUND, "ada", "come back", anyway=True)


def test_rollback_to_a_policy_that_never_was_champion_is_refused(waiting) -> None:
    result = rlhf_here("rollback", "--loop", waiting.loop.root, "--to", policy(waiting), "--reason", "x")
    assert_one_sentence(result, "never champion")
    unknown = rlhf_here("rollback", "--loop", waiting.loop.root, "--to", "ghost", "--reason", "x")
    assert_one_sentence(unknown, "There is no policy ghost")
