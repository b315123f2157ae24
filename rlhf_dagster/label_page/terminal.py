"""Judging in the terminal: one comparison after the other, an answer a line."""

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.label_page.desk import Desk, ShownComparison, command_after
from rlhf_dagster.records.kinds import HIGHEST_RATING, LOWEST_RATING

HELP = {
    "pair": "a or b for the better one, aa or bb for a much better one, = for equally good",
    "best_of_k": "the number of the best; several, as in `1 3`, where they are equally good",
    "ranking": "the numbers from best to worst, as in `2 1=3`, where 1 and 3 are equally good",
    "rating": f"a rating of each response from {LOWEST_RATING} to {HIGHEST_RATING}, as in `5 3`",
    "demonstration": "an answer, on one line",
}
ALWAYS = "c: cannot decide, s: skip, q: stop"
Ask = Callable[[str], str]
Print = Callable[[str], object]


def label_in_terminal(desk: Desk, ask: Ask = input, say: Print = print) -> int:
    """Ask until nothing is left or the person stops; returns how many comparisons were judged."""
    given = 0
    while (question := desk.next()) is not None:
        progress = desk.progress((question.round, question.purpose))
        say(f"\n{question.round}, {question.purpose}: {progress.complete:,} of {progress.comparisons:,} done")
        _show(question, say)
        began = time.monotonic()
        result = _asked(question, ask, say)
        seconds = time.monotonic() - began
        if result is None:
            return given
        if result == {}:
            desk.skip(question.comparison_id, seconds)
        else:
            desk.answer(question.comparison_id, result, seconds)
            given += 1
    say(f"\nNothing is left for you. What comes next: {command_after(desk.loop, desk.batches())}")
    return given


def _show(question: ShownComparison, say: Print) -> None:
    for role, text in question.prompt:
        say(_wrapped(f"{role}: {text}" if role else text, ""))
    for place, text in enumerate(question.responses):
        say(f"\n{_name(question, place)}")
        say(_wrapped(text.strip() or "(empty)", "    "))


def _asked(question: ShownComparison, ask: Ask, say: Print) -> dict[str, Any] | None:
    """The result; empty for a skip, None where the person stops."""
    asked = [f"{HELP[question.kind]}"]
    if question.kind == "rating":
        asked = [f"{axis}: {HELP['rating']}" for axis in question.axes]
    elif question.kind == "pair":
        asked += [f"{axis}: a or b for the better one, = for equally good" for axis in question.axes]
    given: list[Any] = []
    for number, what in enumerate(asked):
        line = _line(f"\n{what}; {ALWAYS}\n> ", question, number, ask, say)
        if not isinstance(line, _Read):
            return line
        given.append(line.value)
    return _result(question, given)


@dataclass(frozen=True)
class _Read:
    """What a line has answered, where it did not skip or stop."""

    value: Any


def _line(text: str, question: ShownComparison, number: int, ask: Ask, say: Print) -> _Read | dict[str, Any] | None:
    while True:
        try:
            said = ask(text).strip()
        except (EOFError, KeyboardInterrupt):
            return None
        written = question.kind == "demonstration"
        if said.lower() in ("q", "s") or (said.lower() == "c" and not written):
            return {"q": None, "s": {}, "c": {"cannot_decide": True}}[said.lower()]
        try:
            return _Read(read_axis(said) if number and question.kind == "pair" else read_line(question, said))
        except ValueError:
            say(f"{said!r} is no answer here.")


def _result(question: ShownComparison, given: list[Any]) -> dict[str, Any]:
    if question.kind == "rating":
        return {"ratings": dict(zip(question.axes, given, strict=True))}
    result: dict[str, Any] = given[0]
    return result | ({"axes": dict(zip(question.axes, given[1:], strict=True))} if given[1:] else {})


def read_axis(said: str) -> int | str:
    """The better one of a pair on an axis; raises ValueError for a line that is no answer."""
    choices: dict[str, int | str] = {"a": 0, "b": 1, "=": "tie"}
    if said.lower() not in choices:
        raise ValueError(said)
    return choices[said.lower()]


def read_line(question: ShownComparison, said: str) -> Any:
    """What a line answers to a question, of a rating the numbers; raises ValueError for a line that is no answer."""
    return _READERS[question.kind](question, _given(said))


def _read_pair(question: ShownComparison, said: str) -> dict[str, Any]:
    line = said.lower()
    much = question.strength and line in ("aa", "bb")
    choice = read_axis(line[0] if much else line)
    asks = question.strength and choice != "tie"
    return {"choice": choice} | ({"strength": 1.0 if much else 0.5} if asks else {})


def _read_best(question: ShownComparison, said: str) -> dict[str, Any]:
    places = sorted({_place(part, len(question.responses)) for part in said.split()})
    return {"best": places[0] if len(places) == 1 else places}


def _read_ranking(question: ShownComparison, said: str) -> dict[str, Any]:
    k = len(question.responses)
    groups = [[_place(part, k) for part in group.split("=")] for group in said.split()]
    rank_of = {place: rank for rank, group in enumerate(groups, 1) for place in group}
    if len(rank_of) != k or sum(map(len, groups)) != k:
        raise ValueError(said)
    return {"ranks": [rank_of[place] for place in range(k)]}


def _read_ratings(question: ShownComparison, said: str) -> list[int]:
    ratings = [int(part) for part in said.split()]
    if len(ratings) != len(question.responses) or not all(LOWEST_RATING <= one <= HIGHEST_RATING for one in ratings):
        raise ValueError(said)
    return ratings


_READERS: dict[str, Callable[[ShownComparison, str], Any]] = {
    "pair": _read_pair,
    "best_of_k": _read_best,
    "ranking": _read_ranking,
    "rating": _read_ratings,
    "demonstration": lambda _, said: {"text": said},
}


def _given(line: str) -> str:
    if not line.strip():
        raise ValueError(line)
    return line


def _place(part: str, k: int) -> int:
    place = int(part) - 1
    if not 0 <= place < k:
        raise ValueError(part)
    return place


def _name(question: ShownComparison, place: int) -> str:
    return "AB"[place] if question.kind == "pair" else str(place + 1)


def _wrapped(text: str, indent: str) -> str:
    lines = [textwrap.fill(line, 100, initial_indent=indent, subsequent_indent=indent) for line in text.split("\n")]
    return "\n".join(lines)
