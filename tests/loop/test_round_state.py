"""Where a round stands, from what is on disk and in the label store."""

from pathlib import Path
from typing import Any

import pytest
from batches import open_loop, send
from gate_figures import report as good_report
from loops import asset_path
from rounds_on_disk import key, promote, refuse, register, store

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import simulate
from rlhf_dagster.loop.round_state import labels_used, newest_promoted, round_state, undecided_rounds, waits_for

ROUND = key(1)


def report(policy: str, **changes: Any) -> dict[str, Any]:
    """Of a policy that the gate's early filter passes."""
    return good_report() | {"policy_id": policy} | changes


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    loop = open_loop(tmp_path / "loop")
    register(loop, "sft", "")
    loop.registry.set_initial("sft")
    return loop


def test_a_round_from_opening_to_the_approval(loop: LoopFolder) -> None:
    state = round_state(loop, ROUND)
    assert (state.phase, state.labels) == ("opened", None)
    assert "waits for collect_round" in waits_for(loop, state)

    send(loop, n := 20, ROUND)
    state = round_state(loop, ROUND)
    assert (state.phase, state.labels.comparisons, state.labels.new) == ("labelling", n, 0)
    assert waits_for(loop, state) == f"{ROUND} waits for annotators: {n} of {n} comparisons still want labels."

    simulate(loop, ROUND, "train", Progress("annotate", print))
    state = round_state(loop, ROUND)
    assert waits_for(loop, state) == f"{ROUND} waits for train_round: all {n} comparisons have their labels."
    position = state.labels.position
    assert state.labels.new == state.labels.usable > 0

    store(loop, "eval_report", ROUND, report("p1", labels_read={"position": position}))
    state = round_state(loop, ROUND)
    assert (state.phase, state.policy, state.labels.new) == ("trained", "p1", 0)
    assert waits_for(loop, state).endswith(
        "p1 is not decided on, nor sent to be judged. A run of it that failed is to be re-executed."
    )

    store(loop, "promotion", ROUND, {"policy": "p1", "outcome": "waiting for approval", "reasons": ["The gate passes"]})
    state = round_state(loop, ROUND)
    assert (state.phase, state.decided, state.reasons) == ("approval", False, ["The gate passes"])
    assert f"rlhf promote --loop {loop.root} --round {ROUND}" in waits_for(loop, state)


def test_the_gates_early_no_decides_a_round_and_later_labels_count(loop: LoopFolder) -> None:
    send(loop, 20, ROUND)
    simulate(loop, ROUND, "train", Progress("annotate", print))
    read = round_state(loop, ROUND).labels.position // 2
    too_far = report("p1", labels_read={"position": read})
    too_far["policies"]["policy"]["kl"] = {"value": 1e6, "low": 1e6, "high": 1e6, "n": 1}
    store(loop, "eval_report", ROUND, too_far)
    state = round_state(loop, ROUND)
    assert (state.phase, state.decided) == ("refused", True)
    assert any("over the budget" in reason for reason in state.reasons)
    assert 0 < state.labels.new < state.labels.usable
    assert waits_for(loop, state) == ""


def test_a_decision_about_an_earlier_policy_of_the_round_does_not_count(loop: LoopFolder) -> None:
    send(loop, 20, ROUND)
    refuse(loop, ROUND, "p1")
    assert round_state(loop, ROUND).phase == "refused"
    store(loop, "eval_report", ROUND, report("p2"))
    assert round_state(loop, ROUND).phase == "trained"


def test_what_a_later_promotion_has_overtaken_is_closed_and_asks_nobody(
    loop: LoopFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(loop, 20, ROUND)
    promote(loop, key(2), "p2")
    store(loop, "preference_batch", key(2), {})
    asset_path(loop, "preference_batch", key(2)).touch()
    monkeypatch.setattr(type(loop), "label_store", property(lambda _: pytest.fail("the label store was asked")))
    assert newest_promoted(loop) == key(2)
    assert [round_state(loop, name).phase for name in (ROUND, key(2))] == ["closed", "promoted"]
    assert undecided_rounds(loop, [ROUND, key(2)]) == []


def test_of_refused_rounds_only_the_newest_may_still_be_trained_again(loop: LoopFolder) -> None:
    for number in (1, 2, 3):
        send(loop, 4, key(number))
        refuse(loop, key(number), f"p{number}")
    assert [state.round for state in undecided_rounds(loop, [key(3), key(1), key(2)])] == [key(3)]
    send(loop, 4, key(4))
    assert [(state.round, state.phase) for state in undecided_rounds(loop, [key(n) for n in range(1, 5)])] == [
        (key(4), "labelling")
    ]


def test_the_watermark_is_what_the_report_was_trained_on() -> None:
    assert labels_used(None) == 0
    assert labels_used({"labels_read": None}) == 0
    assert labels_used({"labels_read": {"position": 17}}) == 17
