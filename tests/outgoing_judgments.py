"""Judgments to export, drawn at random."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.chats import Chat, Message
from rlhf_dagster.records.outcome import OVERALL, ranks_from_best, ranks_from_ratings

WORDS = st.text(min_size=1).filter(lambda text: bool(text.strip()))
RESPONSES = st.text()
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
CHATS = st.lists(WORDS, min_size=1, max_size=3).map(
    lambda texts: Chat(tuple(Message("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(texts)))
).filter(lambda chat: chat.messages[-1].role == "user")  # fmt: skip


@st.composite
def judgments(draw: st.DrawFn, kinds: tuple[str, ...] = ("pair", "best_of_k", "ranking", "rating")) -> OutgoingJudgment:
    kind = draw(st.sampled_from(kinds))
    k = 2 if kind == "pair" else draw(st.integers(2, 5))
    line = JudgmentLine(
        comparison=draw(WORDS),
        prompt=draw(WORDS | CHATS),
        responses=tuple(draw(st.lists(RESPONSES, min_size=k, max_size=k))),
        annotator=draw(st.sampled_from(["0123abc", "machine:judge", "source:file"])),
        kind=kind,
        **draw(outcomes(kind, k)),
        order_known=draw(st.booleans()),
        strength=draw(st.none() | st.floats(0, 1)) if kind == "pair" else None,
        policies=draw(st.just(()) | st.lists(st.sampled_from(["", "p", "q"]), min_size=k, max_size=k).map(tuple)),
        flags=tuple(draw(st.lists(st.sampled_from(["unsafe", "both_bad"]), unique=True))),
        reason=draw(RESPONSES),
        submitted_at=draw(st.none() | TIMES),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        metadata=draw(st.dictionaries(WORDS.map(lambda text: f"meta {text}"), st.integers() | RESPONSES, max_size=2)),
    )
    split = draw(st.sampled_from(["", "train", "validation"]))
    return OutgoingJudgment(line, "round-0001", split=split, weight=draw(st.none() | st.floats(0.1, 4)), source="file")


@st.composite
def outcomes(draw: st.DrawFn, kind: str, k: int) -> dict[str, Any]:
    """Ranks and ratings that a judgment of this kind can have."""
    if draw(st.integers(0, 5)) == 0:
        return {"ranks": None}
    if kind == "rating":
        given = {OVERALL: draw(numbers(k, 7)), "helpful": draw(numbers(k, 7))}
        return {"ranks": tuple(ranks_from_ratings(given[OVERALL])), "ratings": given}
    if kind == "ranking":
        return {"ranks": tuple(ranks_from_ratings(draw(numbers(k, k))))}
    best = draw(st.sets(st.integers(0, k - 1), min_size=1))
    return {"ranks": tuple(ranks_from_best(range(k) if kind == "pair" and len(best) == 2 else best, k))}


def numbers(k: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, most), min_size=k, max_size=k).map(tuple)
