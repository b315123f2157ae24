"""Simulated annotators at a pace: the same labels as at once, in whatever is open, whatever fails on the way."""

import pytest
from batches import answers, expected, open_loop, send
from loops import ROUND

from rlhf_dagster.labeling.store import LabelStoreUnavailable
from rlhf_dagster.loop import annotators
from rlhf_dagster.loop.annotators import PAUSE, Crew, follow, open_batches, work_off
from rlhf_dagster.loop.folder import LoopFolder

PURPOSES = ("train", "evaluation")


def silent(_: object) -> None:
    pass


@pytest.fixture
def loop(tmp_path) -> LoopFolder:
    return open_loop(tmp_path / "loop")


class Clock:
    """Stands in for sleep; ends the work after a number of pauses without anything to do."""

    def __init__(self, idle: int = 3) -> None:
        self.slept: list[float] = []
        self.idle = idle

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.slept[-self.idle :] == [PAUSE] * self.idle:
            raise KeyboardInterrupt


def test_pacing_changes_neither_who_judges_what_nor_how(loop, tmp_path) -> None:
    send(loop, 30)
    clock, lines = Clock(), []
    crew = Crew(loop, per_minute=10, sleep=clock)
    work_off(crew, [(ROUND, "train")], lines.append)
    assert answers(loop) == expected(tmp_path / "other", 30)
    assert len(clock.slept) == crew.given == 30 + 2 * 12
    assert sum(clock.slept) / len(clock.slept) == pytest.approx(6.0, rel=0.4)
    assert len(lines) > 3  # a line a minute
    assert lines[-1].startswith(f"{ROUND}, train: ")
    assert lines[-1].endswith(" 0 to go")


def test_labels_come_from_people_who_come_and_go(loop) -> None:
    send(loop, 30)
    work_off(Crew(loop, per_minute=10, sleep=silent), [(ROUND, "train")], silent)
    order = [version.annotator for version in loop.label_store.read(ROUND, "train")[0]]
    assert 1 < len(set(order[:10])) < len(set(order[:40])) <= len(set(order))


def test_followers_answer_all_that_is_open_and_what_opens_later(loop, tmp_path) -> None:
    send(loop, 8)
    send(loop, 6, purpose="evaluation")
    later = iter([lambda: send(loop, 5, "round-0002"), lambda: None])

    def find() -> list:
        if not crew.missing(found := open_batches(loop, None, PURPOSES)):
            next(later, lambda: None)()
            found = open_batches(loop, None, PURPOSES)
        return found

    crew = Crew(loop, per_minute=30, sleep=Clock())
    with pytest.raises(KeyboardInterrupt):
        follow(crew, find, silent)
    assert answers(loop) == expected(tmp_path / "a", 8)
    assert answers(loop, purpose="evaluation") == expected(tmp_path / "b", 6, purpose="evaluation")
    assert answers(loop, "round-0002") == expected(tmp_path / "c", 5, "round-0002")
    assert crew.given == sum(
        answers(loop, key, purpose).total()
        for key, purpose in [(ROUND, "train"), (ROUND, "evaluation"), ("round-0002", "train")]
    )


def test_who_is_stopped_at_any_moment_goes_on_without_losing_or_repeating(loop, tmp_path) -> None:
    send(loop, 12)
    whole = expected(tmp_path / "other", 12)

    for moment in range(1, 40):
        calls = iter(range(1000))

        def die(*_: object, calls=calls, moment=moment) -> None:
            if next(calls) == moment % 3:
                raise KeyboardInterrupt

        try:
            work_off(Crew(loop, per_minute=20, sleep=die), [(ROUND, "train")], silent)
            break
        except KeyboardInterrupt:
            assert set(answers(loop)) <= set(whole)
    assert answers(loop) == whole


class Flaky:
    """A label store that fails before or after it has done what it was asked."""

    def __init__(self, store, failures: list[str]) -> None:
        self.store, self.failures = store, failures

    def __getattr__(self, name: str):
        return getattr(self.store, name)

    def count(self, *args):
        if self.failures and self.failures[0] == "away":
            self._fail()
        return self.store.count(*args)

    def submit_many(self, submissions):
        if self.failures and self.failures[0] == "before":
            self._fail()
        ids = self.store.submit_many(submissions)
        if self.failures and self.failures[0] == "after":
            self._fail()
        return ids

    def _fail(self):
        self.failures.pop(0)
        raise LabelStoreUnavailable("The server is away.")


def test_a_store_that_fails_is_waited_for_and_nothing_is_lost_or_there_twice(loop, tmp_path, monkeypatch) -> None:
    send(loop, 10)
    failures = ["away", "away", "before", "away", "away", "after", "after", "away", "before"]
    monkeypatch.setattr(LoopFolder, "label_store", property(lambda self: Flaky(self.ledger, failures)))
    lines, clock = [], Clock(idle=6)
    with pytest.raises(KeyboardInterrupt):
        follow(Crew(loop, per_minute=60, sleep=clock), lambda: open_batches(loop, None, PURPOSES), lines.append)
    assert failures == []
    monkeypatch.undo()
    assert answers(loop) == expected(tmp_path / "other", 10)
    waits, returns = (
        lines.count(line) for line in ("The server is away. Waiting for it.", "The label store answers again.")
    )
    # Each outage once, however many requests it fails: it ends when the missing labels have been looked up.
    assert waits == returns == 5


def test_what_nobody_can_answer_is_not_looked_up_again_and_again(loop, monkeypatch) -> None:
    send(loop, 10)
    looked = []
    find_work = annotators.find_work
    monkeypatch.setattr(annotators, "find_work", lambda *args, **kw: looked.append(1) or find_work(*args, **kw))
    crew = Crew(loop, annotators=1, sleep=Clock(idle=5))
    with pytest.raises(KeyboardInterrupt):
        follow(crew, lambda: open_batches(loop, None, PURPOSES), silent)
    counts = loop.label_store.count(ROUND, "train")
    assert (counts.labels, counts.complete) == (10, 6)
    assert len(looked) == 2


def test_open_batches_leave_out_what_is_decided_and_what_was_imported(loop) -> None:
    assert open_batches(loop, None, PURPOSES) == []
    for key in ("round-0000", "round-0001", "round-0002", "round-0003"):
        send(loop, 1, key)
    send(loop, 1, "round-0002", "evaluation")
    loop.registry.register("sft", "models/sft", "sft", "")
    loop.registry.set_initial("sft")
    everything = [
        ("round-0001", "train"),
        ("round-0002", "evaluation"),
        ("round-0002", "train"),
        ("round-0003", "train"),
    ]
    assert open_batches(loop, None, PURPOSES) == everything
    loop.registry.register("p", "models/p", "ppo", "round-0001")
    loop.registry.promote("p", "round-0001", by="test", reason="it is better")
    assert open_batches(loop, None, PURPOSES) == everything[1:]
    assert open_batches(loop, None, ("evaluation",)) == [("round-0002", "evaluation")]
    assert open_batches(loop, "round-0001", PURPOSES) == [("round-0001", "train")]
