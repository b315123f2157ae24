"""What one person is asked, and what becomes of the answers."""

from pathlib import Path
from typing import Any

import pytest
from batches import pairs
from label_loops import loop_of_kind
from loops import ROUND, write_loop
from people import pseudonym

from rlhf_dagster.errors import UserError
from rlhf_dagster.label_page.desk import Desk, command_after
from rlhf_dagster.labeling.demonstrations import DEMONSTRATION_ROUND
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels

ANSWERS: dict[str, dict[str, Any]] = {
    "pair": {"choice": 1, "strength": 1.0},
    "best_of_k": {"best": 2},
    "ranking": {"ranks": [2, 1, 2]},
    "rating": {"ratings": {"overall": [1, 7, 4], "honest": [3, 3, 3]}},
}


def answer_all(desk: Desk, result: dict[str, Any]) -> int:
    given = 0
    while question := desk.next():
        desk.answer(question.comparison_id, result, 4.0)
        given += 1
    return given


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_kind_is_asked_once_and_read_as_it_was_shown(kind: str, tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, kind)
    desk = Desk(loop, "Ada")
    shown = desk.next()
    assert shown and shown.prompt[0][0] == "" and len(shown.responses) == (2 if kind == "pair" else 3)
    assert shown.strength == (kind == "pair")
    assert shown.axes == (["overall", "honest"] if kind == "rating" else [])
    assert answer_all(desk, ANSWERS[kind]) == 4
    labels, quarantined = read_labels(loop, ROUND, "train")
    assert (len(labels), quarantined) == (4, 0)
    assert set(labels["annotator"]) == {pseudonym("Ada")}
    assert set(labels["seconds"]) == {4.0}
    row = labels[labels["comparison_id"] == shown.comparison_id].iloc[0]
    sent = loop.ledger.comparisons(ROUND, "train").set_index("comparison_id").loc[shown.comparison_id]
    best = [text for text, rank in zip(sent["responses"], row["ranks"], strict=True) if rank == 1]
    assert best == [shown.responses[{"pair": 1, "best_of_k": 2, "ranking": 1, "rating": 1}[kind]]]


def test_two_people_do_not_judge_the_same_where_one_label_is_wanted(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair")
    ada, bob = Desk(loop, "Ada"), Desk(loop, "Bob")
    first = ada.next()
    assert first
    ada.answer(first.comparison_id, {"choice": "tie"}, 1.0)
    assert answer_all(bob, {"choice": 0}) == 3
    assert ada.next() is None
    progress = ada.progress((ROUND, "train"))
    assert (progress.yours, progress.complete, progress.comparisons) == (1, 4, 4)


def test_an_answer_can_be_looked_at_again_and_edited(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair")
    desk = Desk(loop, "Ada")
    question = desk.next()
    assert question and question.answer is None
    desk.answer(question.comparison_id, {"choice": 0, "reason": "it is kind"}, 2.0)
    again = desk.question(question.comparison_id)
    assert again.answer == {"choice": 0, "reason": "it is kind"}
    assert again.responses == question.responses
    desk.answer(question.comparison_id, {"choice": 1}, 2.0)
    labels, _ = read_labels(loop, ROUND, "train")
    assert list(labels.sort_values("version")["latest"]) == [False, True]


def test_what_was_skipped_is_on_record_and_comes_last(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair", n=3)
    desk = Desk(loop, "Ada")
    skipped = desk.next()
    assert skipped
    desk.skip(skipped.comparison_id, 1.0)
    others = []
    while (question := desk.next()) and question.comparison_id != skipped.comparison_id:
        others.append(question.comparison_id)
        desk.answer(question.comparison_id, {"choice": 0}, 1.0)
    assert len(others) == 2
    assert question and question.comparison_id == skipped.comparison_id
    assert loop.label_store.count(ROUND, "train").skipped == 1
    assert Desk(loop, "Ada").next() is None  # another day it is not asked again
    assert Desk(loop, "Bob").next()


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        ({"choice": 2}, "choice"),
        ({"best": 0}, "keys"),
        ({"choice": 0, "flags": ["rude"]}, "flags"),
        ({"choice": 0, "strength": 7}, "strength"),
        ("A", "not an object"),
        ({}, "choice"),
        ({"choice": 0, "reason": "\ud800"}, "reason"),
    ],
)
def test_what_is_no_answer_is_refused_and_nothing_is_kept(result: Any, sentence: str, tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair", n=1)
    desk = Desk(loop, "Ada")
    question = desk.next()
    assert question
    with pytest.raises(UserError, match=sentence):
        desk.answer(question.comparison_id, result, 1.0)
    with pytest.raises(UserError, match="never sent"):
        desk.answer("another", {"choice": 0}, 1.0)
    assert loop.label_store.count(ROUND, "train").labels == 0


def test_times_that_cannot_be_are_not_kept(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair", n=3)
    desk = Desk(loop, "Ada")
    for seconds in (-1.0, 1e9, float("nan")):
        question = desk.next()
        assert question
        desk.answer(question.comparison_id, {"choice": 0}, seconds)
    labels, _ = read_labels(loop, ROUND, "train")
    assert labels["seconds"].isna().all()


def test_an_evaluation_asks_for_its_axes_and_no_strength(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair", purpose="evaluation", evaluation_axes=["honest"])
    desk = Desk(loop, "Ada")
    question = desk.next()
    assert question and (question.purpose, question.axes, question.strength) == ("evaluation", ["honest"], False)
    desk.answer(question.comparison_id, {"choice": 0, "axes": {"honest": "tie"}}, 1.0)
    assert command_after(loop, desk.batches()).startswith(f"rlhf run release_round --round {ROUND}")


def test_demonstrations_are_written_first(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair")
    frame = pairs(1, DEMONSTRATION_ROUND, DEMONSTRATION_ROUND).head(1)
    nothing = [[]] * len(frame)
    empty = dict.fromkeys(("completion_ids", "responses", "policy_ids", "display_order"), nothing)
    loop.label_store.send(frame.assign(kind="demonstration", labels_wanted=1, **empty))
    desk = Desk(loop, "Ada")
    question = desk.next()
    assert question and question.kind == "demonstration" and question.responses == []
    desk.answer(question.comparison_id, {"text": "an ideal answer"}, 1.0)
    following = desk.next()
    assert following and following.kind == "pair"


@pytest.mark.parametrize(
    ("settings", "name", "round_key", "sentence"),
    [
        ({"label_store": {"kind": "label_studio"}}, "Ada", None, "work in Label Studio, at http"),
        ({}, "  ", None, "give your name"),
        ({}, "machine:judge", None, "a name for machines"),
        ({}, "Ada", "round-0001", "nothing to label yet; run `rlhf run collect_round"),
    ],
)
def test_who_cannot_label_is_told_why(
    settings: dict[str, Any], name: str, round_key: str | None, sentence: str, tmp_path: Path
) -> None:
    loop = LoopFolder.open(write_loop(tmp_path, **settings))
    with pytest.raises(UserError, match=sentence):
        Desk(loop, name, round_key)
