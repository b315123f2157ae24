"""A round that is read in parts is the round of one moment."""

from rlhf_dagster.labeling.ledger import parts
from rlhf_dagster.labeling.store import Submission

ROUND, PURPOSE = "round-0001", "train"


def test_parts_together_are_the_whole(ledger, batch, monkeypatch) -> None:
    monkeypatch.setattr(parts, "_ROWS", 3)
    frame = batch(7)
    ledger.send(frame)
    ledger.submit_many([Submission(one, name, {"choice": 0}) for name in "ab" for one in frame["comparison_id"]])
    ledger.submit(frame["comparison_id"][0], "a", {"choice": 1})
    whole, _ = ledger.read(ROUND, PURPOSE)
    assert list(ledger.annotations(ROUND, PURPOSE)) == whole
    assert len(whole) == 15
    assert [row["comparison_id"] for row in ledger.comparison_rows(ROUND, PURPOSE)] == frame["comparison_id"].tolist()


def test_what_comes_while_it_is_read_is_in_the_next_reading(ledger, batch, monkeypatch) -> None:
    monkeypatch.setattr(parts, "_ROWS", 2)
    frame, later = batch(4), batch(3, "round-0002")
    ledger.send(frame)
    ledger.submit_many([Submission(one, "a", {"choice": 0}) for one in frame["comparison_id"]])
    reading, asked = ledger.annotations(ROUND, PURPOSE), ledger.comparison_rows(ROUND, PURPOSE)
    first = [next(reading), next(asked)]
    ledger.send(later)
    ledger.submit(frame["comparison_id"][1], "b", {"choice": 0})
    assert len([*first, *reading, *asked]) == 4 + 4
    assert len(list(ledger.annotations(ROUND, PURPOSE))) == 5


def test_a_round_that_was_never_sent_has_nothing(ledger) -> None:
    assert list(ledger.annotations(ROUND, PURPOSE)) == list(ledger.comparison_rows(ROUND, PURPOSE)) == []
