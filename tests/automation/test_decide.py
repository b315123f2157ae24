"""What is launched, and the sentence shown where nothing is."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from rlhf_dagster.automation.decide import (
    Attempt,
    Launch,
    Scene,
    Wait,
    Waiting,
    collect_decision,
    open_decision,
    release_decision,
    sending_decision,
    train_decision,
)
from rlhf_dagster.config.automation import AutomationSettings
from rlhf_dagster.labeling.store import LabelCounts
from rlhf_dagster.loop.round_state import RoundState

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
SETTINGS = AutomationSettings(min_new_labels=100, quiet_minutes=10, longest_wait_hours=24, max_unlabelled=50)


def counts(
    new: int = 0, complete: int = 0, of: int = 300, quiet: float = 60, waited: float = 60, position: int = 7
) -> LabelCounts:
    """``quiet`` and ``waited`` are the ages of the newest and the oldest new label in minutes."""
    newest, oldest = (NOW - timedelta(minutes=age) if new else None for age in (quiet, waited))
    return LabelCounts(
        of,
        complete,
        complete,
        complete,
        0,
        complete,
        position=position,
        new=new,
        oldest_new_at=oldest,
        newest_at=newest,
    )


def labelling(labels: LabelCounts, key: str = "round-0001") -> RoundState:
    return RoundState(key, "labelling", labels)


def train(labels: LabelCounts, attempt: Attempt | None = None, since: LabelCounts | None = None) -> Launch | Wait:
    return train_decision(Waiting(labelling(labels), attempt, since), SETTINGS, NOW, 0)


def test_enough_labels_and_quiet_annotators_start_training() -> None:
    decision = train(counts(new=100, complete=100, quiet=10))
    assert decision == Launch(
        "train_round", "round-0001", "round-0001:7:0", "round-0001: 100 new usable labels, and none for 10 min.", 7
    )


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (counts(), "round-0001: no new usable label (0 of 300 comparisons have their labels)."),
        (counts(new=99, complete=99), "round-0001: 99 new usable labels; training starts at 100."),
        (
            counts(new=100, complete=100, quiet=9.5),
            "round-0001: 100 new usable labels; annotators are at work (the last label is 10 min old, training waits "
            "for 10 minutes without one).",
        ),
        (
            counts(new=250, complete=250, quiet=1, waited=24 * 60 - 1),
            "round-0001: 250 new usable labels; annotators are at work (the last label is 60 s old, training waits "
            "for 10 minutes without one).",
        ),
    ],
)
def test_training_waits_and_says_for_what(labels: LabelCounts, sentence: str) -> None:
    assert train(labels) == Wait(sentence)


def test_a_steady_trickle_does_not_starve_training() -> None:
    decision = train(counts(new=100, complete=100, quiet=0.1, waited=24 * 60))
    assert isinstance(decision, Launch)
    assert decision.why == "round-0001: 100 new usable labels, of which the oldest has waited for 24.0 h."


def test_a_label_from_the_future_does_not_hold_up_training() -> None:
    """Somebody's clock is a year ahead: that annotators are at work is not known, and would be said for a year."""
    year = -365 * 24 * 60
    decision = train(counts(new=100, complete=100, quiet=year))
    assert isinstance(decision, Launch)
    assert "by a clock that is ahead of ours and not waited for" in decision.why
    assert isinstance(train(counts(new=99, complete=99, quiet=year)), Wait)
    ahead = train(counts(new=100, complete=100, quiet=-2))  # clocks that differ a little
    assert isinstance(ahead, Wait)
    assert "the last label is 0 s old" in ahead.why


def test_a_judgment_from_the_future_does_not_hold_up_the_decision() -> None:
    year = -365 * 24 * 60
    for waited, is_due in ((24 * 60, True), (24 * 60 - 1, False)):
        judged = judging(counts(new=380, complete=380, of=385, quiet=year, waited=waited))
        assert isinstance(release_decision(judged, SETTINGS, NOW, 0), Launch) == is_due


def test_a_complete_round_needs_no_threshold_and_no_quiet() -> None:
    decision = train(counts(new=1, complete=300, quiet=0))
    assert isinstance(decision, Launch)
    assert decision.why == "round-0001: all 300 comparisons have their labels, 1 of them new."


def test_what_was_trained_on_is_not_trained_on_again() -> None:
    assert isinstance(train(counts(new=0, complete=300)), Wait)


def test_a_run_at_work_is_not_doubled() -> None:
    decision = train(counts(new=300, complete=300), Attempt("abcdef123456", active=True, failed=False))
    assert decision == Wait("round-0001 is being trained (run abcdef12).")


def test_a_failed_training_is_not_launched_again_without_more_labels() -> None:
    failed = Attempt("abcdef123456", active=False, failed=True, position=7)
    decision = train(counts(new=300, complete=300), failed, counts(new=0, complete=300))
    assert decision == Wait(
        "round-0001: no new usable label (300 of 300 comparisons have their labels). Training on the others failed in "
        "run abcdef12; re-execute it once that is mended."
    )
    assert isinstance(train(counts(new=130, complete=130), failed, counts(new=30, complete=130)), Wait)


def test_more_labels_launch_a_failed_training_again() -> None:
    failed = Attempt("abcdef123456", active=False, failed=True, position=7)
    decision = train(counts(new=240, complete=240, position=19), failed, counts(new=100, complete=240, position=19))
    assert isinstance(decision, Launch)
    assert decision.run_key == "round-0001:19:0"


def test_what_was_stopped_may_be_launched_again_after_a_resume() -> None:
    stopped = Attempt("abcdef123456", active=False, failed=False, position=7)
    waiting = Waiting(labelling(counts(new=300, complete=300)), stopped)
    keys = {train_decision(waiting, SETTINGS, NOW, epoch).run_key for epoch in (0, 1)}  # type: ignore[union-attr]
    assert len(keys) == 2


def test_a_refused_round_is_trained_again_with_enough_new_labels() -> None:
    refused = RoundState("round-0001", "refused", counts(new=120, complete=250), policy="p", reasons=["no"])
    assert isinstance(train_decision(Waiting(refused), SETTINGS, NOW, 0), Launch)


def test_a_trained_policy_that_is_not_on_its_way_says_why_and_goes_on_after_a_stop() -> None:
    trained = RoundState("round-0001", "trained", counts(new=0, complete=300), policy="p")
    run = partial(Attempt, "abcdef123456")
    assert sending_decision(trained, run(active=True, failed=False), 0) == Wait(
        "round-0001 is being trained (run abcdef12)."
    )
    assert sending_decision(trained, run(active=False, failed=True, position=7), 0) == Wait(
        "round-0001: p is trained, and run abcdef12 failed before it was decided on or sent to be judged; re-execute "
        "it once that is mended."
    )
    stopped = run(active=False, failed=False, position=7, stopped=True)
    launches = [sending_decision(trained, stopped, epoch) for epoch in (0, 1)]
    assert [launch.run_key for launch in launches if isinstance(launch, Launch)] == ["round-0001:7:0", "round-0001:7:1"]
    for other in (None, run(active=False, failed=False, position=7)):
        assert sending_decision(trained, other, 0) == Wait(
            "round-0001: p is not decided on, nor sent to be judged; run train_round again."
        )


def judging(judgments: LabelCounts, reasons: list[str] | None = None) -> Waiting:
    return Waiting(RoundState("round-0001", "judging", counts(), judgments, "p", reasons or []))


def test_judged_comparisons_are_decided_on() -> None:
    decision = release_decision(judging(counts(new=385, complete=385, of=385)), SETTINGS, NOW, 0)
    assert decision == Launch(
        "release_round", "round-0001", "round-0001:7:0", "round-0001: all 385 A/B comparisons are judged.", 7
    )


def test_unjudged_comparisons_are_waited_for_but_not_for_ever() -> None:
    waiting = release_decision(judging(counts(new=380, complete=380, of=385)), SETTINGS, NOW, 0)
    assert waiting == Wait("round-0001: 5 of 385 A/B comparisons are not judged.")
    late = release_decision(judging(counts(new=380, complete=380, of=385, quiet=24 * 60)), SETTINGS, NOW, 0)
    assert isinstance(late, Launch)
    assert late.why == "round-0001: no A/B judgment for 24.0 h; deciding on 380."
    assert isinstance(release_decision(judging(counts(of=385)), SETTINGS, NOW, 0), Wait)


def test_the_same_judgments_are_not_decided_on_twice() -> None:
    state = RoundState(
        "round-0001", "judging", counts(), counts(new=385, complete=385, of=385), "p", ["80 are not enough."]
    )
    done = Attempt("abcdef123456", active=False, failed=False, position=7)
    decision = release_decision(Waiting(state, done), SETTINGS, NOW, 0)
    assert decision == Wait("round-0001: no new judgment since the last decision: 80 are not enough.")


def test_a_round_opened_by_hand_is_collected_at_the_second_look() -> None:
    state = RoundState("round-0002", "opened")
    assert collect_decision(state, None, seen_before=False, epoch=0) == Wait("round-0002 was opened just now.")
    launch = collect_decision(state, None, seen_before=True, epoch=0)
    assert launch == Launch("collect_round", "round-0002", "round-0002:0", "round-0002 is open and not collected.")
    failed = Attempt("abcdef123456", active=False, failed=True)
    assert isinstance(collect_decision(state, failed, seen_before=True, epoch=0), Wait)


def opened(states: list[RoundState], settings: AutomationSettings = SETTINGS, **scene: object) -> str | None:
    wait = open_decision(states, Scene(**{"prepared": True, **scene}), settings)  # type: ignore[arg-type]
    return wait.why if wait else None


def test_a_round_opens_when_nothing_is_in_its_way() -> None:
    assert opened([]) is None
    assert opened([RoundState("round-0001", "refused", counts(complete=300), reasons=["no"])]) is None


def test_no_round_opens_before_there_is_a_champion() -> None:
    assert opened([], prepared=False) == "There is no champion to sample from yet; run the job `prepare` first."


def test_no_round_opens_while_too_much_is_unlabelled() -> None:
    many = AutomationSettings(max_unlabelled=50, max_rounds_in_progress=10)
    sentence = "51 comparisons of open rounds still want labels; a round opens at 50 or fewer."
    assert opened([labelling(counts(complete=249))], many) == sentence
    assert opened([labelling(counts(complete=250))], many) is None


def test_no_round_opens_while_training_is_behind() -> None:
    many = AutomationSettings(max_rounds_in_progress=10)
    behind = "Training is behind: round-0001 has all its labels and is not trained yet."
    assert opened([labelling(counts(complete=300))], many) == behind
    running = "train_round of round-0001 is running (run abcdef12)"
    assert opened([], many, active=[running]) == f"Training is behind: {running}."


def test_ten_rounds_may_be_open_at_once_and_no_eleventh() -> None:
    ten = AutomationSettings(max_rounds_in_progress=10)
    states = [labelling(counts(complete=299), f"round-{number:04d}") for number in range(1, 11)]
    assert opened(states[:9], ten) is None
    assert (opened(states, ten) or "").endswith("has no decision yet; 10 may be in progress.")
