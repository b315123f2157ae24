"""Judging in the terminal."""

from pathlib import Path

import pytest
from label_loops import loop_of_kind
from loops import ROUND

from rlhf_dagster.label_page.desk import Desk
from rlhf_dagster.label_page.terminal import label_in_terminal
from rlhf_dagster.loop.labels import read_labels


def judged(desk: Desk, lines: list[str]) -> tuple[int, str]:
    said: list[str] = []
    typed = iter(lines)

    def ask(prompt: str) -> str:
        said.append(prompt)
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    return label_in_terminal(desk, ask, said.append), "\n".join(said)


@pytest.mark.parametrize(
    ("kind", "line", "result"),
    [
        ("pair", "a", {"choice": 0, "strength": 0.5}),
        ("pair", "BB", {"choice": 1, "strength": 1.0}),
        ("pair", "=", {"choice": "tie"}),
        ("best_of_k", "3", {"best": 2}),
        ("best_of_k", "3 1", {"best": [0, 2]}),
        ("ranking", "2 1=3", {"ranks": [2, 1, 2]}),
        ("pair", "c", {"cannot_decide": True}),
    ],
)
def test_a_line_is_an_answer(kind: str, line: str, result: dict, tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, kind, n=1)
    given, said = judged(Desk(loop, "Ada"), [line])
    assert given == 1
    assert "Nothing is left for you. What comes next: rlhf run train_round" in said
    assert loop.ledger.read(ROUND, "train")[0][0].result == result


def test_each_axis_of_a_rating_is_a_line(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "rating", n=1)
    assert judged(Desk(loop, "Ada"), ["7 1 1", "2 2 2"])[0] == 1
    assert loop.ledger.read(ROUND, "train")[0][0].result == {"ratings": {"overall": [7, 1, 1], "honest": [2, 2, 2]}}


def test_an_evaluation_asks_for_each_axis(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair", n=1, purpose="evaluation", evaluation_axes=["honest"])
    assert judged(Desk(loop, "Ada"), ["b", "="])[0] == 1
    assert loop.ledger.read(ROUND, "evaluation")[0][0].result == {"choice": 1, "axes": {"honest": "tie"}}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("pair", ["", "1", "aab", "ab"]),
        ("best_of_k", ["0", "4", "one"]),
        ("ranking", ["1 2", "1 2 3 3", "1 2 4"]),
        ("rating", ["1 2", "0 1 2", "8 1 1"]),
    ],
)
def test_a_line_that_is_no_answer_is_asked_again(kind: str, wrong: list[str], tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, kind, n=1)
    given, said = judged(Desk(loop, "Ada"), [*wrong, "q"])
    assert given == 0
    assert said.count("is no answer here.") == len(wrong)
    assert read_labels(loop, ROUND, "train")[0].empty


def test_who_stops_or_skips_is_asked_no_more(tmp_path: Path) -> None:
    loop = loop_of_kind(tmp_path, "pair", n=3)
    given, _ = judged(Desk(loop, "Ada"), ["s", "a"])
    assert given == 1
    assert loop.label_store.count(ROUND, "train").skipped == 1
