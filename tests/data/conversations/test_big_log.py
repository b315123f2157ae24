"""A log of 10,000 conversations with planted personal data, duplicates and a flood from one user."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conversation_logs import chat_line, thumbs_line, write_log
from people import pseudonym

from rlhf_dagster.config.data import DataSettings
from rlhf_dagster.data.conversations.duplicates import BEGINS_AS_ANOTHER, TURN_OF_LONGER
from rlhf_dagster.data.conversations.keeping import FromLogs, keep_logs
from rlhf_dagster.data.conversations.taking import OVER_THE_LIMIT, WITH_PERSONAL_DATA, WITHOUT_CONSENT
from rlhf_dagster.data.imported import imported
from rlhf_dagster.records.schemas import IMPORTED_FEEDBACK
from rlhf_dagster.storage.local import LocalStore

pytest.importorskip("presidio_analyzer", reason="needs the extra `privacy`")

PLANTED = {
    "EMAIL_ADDRESS": "ada{:03}@example.com",
    "PHONE_NUMBER": "+44 20 7946 0{:03}",
    "CREDIT_CARD": "4111 1111 1111 1111",
    "IBAN_CODE": "DE89 3704 0044 0532 0130 00",
    "IP_ADDRESS": "203.0.113.{:d}",
    "US_SSN": "536-90-4{:03}",
}
"""Personal data by kind; a number from 0 to 99 goes in."""
EACH, FLOOD, TURNED, REFUSING, ALIKE = 100, 3000, 500, 400, 300
OTHERS = 10_000 - len(PLANTED) * EACH - FLOOD - 3 * TURNED - REFUSING - ALIKE
LONG = "Write me an application for the post of a gardener, in which you say that I like roses and the rain. " * 3
WORDS = ["rose", "rain", "garden", "letter", "song", "river", "bread", "train", "winter", "lamp", "stone", "cloud"]


def conversations() -> Iterator[list[dict[str, Any]]]:
    """The lines of each conversation, in their order."""
    draw = random.Random(0)

    def question(tag: str) -> str:
        return f"{tag}: why is there {' '.join(draw.choices(WORDS, k=12))}?"

    for kind, form in PLANTED.items():
        for number in range(EACH):
            asked = f"{question(f'{kind} {number}')} Mine is {form.format(number)} since May."
            yield [chat_line(asked, user=f"p{number}", id=f"{kind}-{number}")]
    for number in range(FLOOD):
        yield [chat_line(question(f"flood {number}"), user="flood")]
    for number in range(TURNED):
        turns = [question(f"turn {number}"), "Who knows?", "You do.", "I do?", "Yes."]
        yield [chat_line(*turns[:length], user=f"t{number}") for length in (1, 3, 5)]
    for number in range(REFUSING):
        yield [chat_line(question(f"refusing {number}"), user=f"r{number}", consent=False)]
    for number in range(ALIKE):
        yield [chat_line(f"{LONG} {number}", user=f"a{number}")]
    for number in range(OTHERS):
        yield [chat_line(question(f"other {number}"), user=f"o{number % 700}", id=f"other-{number}")]


def mixed() -> list[dict[str, Any]]:
    """All lines; those of a conversation keep their order, and thumbs come last."""
    draw, waiting, lines = random.Random(1), [list(one) for one in conversations()], list[dict[str, Any]]()
    order = [number for number, one in enumerate(waiting) for _ in one]
    draw.shuffle(order)
    for number in order:
        lines.append(waiting[number].pop(0))
    assert len(lines) == 10_000
    thumbs = [thumbs_line(f"other-{number}", "up" if number % 3 else "down") for number in range(50)]
    return [*lines, *thumbs, *(thumbs_line(f"EMAIL_ADDRESS-{number}") for number in range(20))]


def kept(folder: Path, **changes: Any) -> FromLogs:
    data = DataSettings(source="imports", feedback={"logs": ["log.jsonl"], **changes})  # type: ignore[arg-type]
    return keep_logs(data, folder, LocalStore(folder / "store"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("big") / "log.jsonl", mixed()).parent


def test_it_is_filtered_capped_deduplicated_and_traced(folder: Path) -> None:
    found = kept(folder)
    assert found.counts["conversations"] == 10_000
    assert found.counts["left_out"] == {
        WITHOUT_CONSENT: REFUSING,
        TURN_OF_LONGER: 2 * TURNED,
        BEGINS_AS_ANOTHER: ALIKE - 1,
        WITH_PERSONAL_DATA: len(PLANTED) * EACH,
        OVER_THE_LIMIT: FLOOD - 200,
    }
    assert found.counts["personal_data"] == dict.fromkeys(PLANTED, EACH)
    assert len(found.rows) == 200 + TURNED + 1 + OTHERS
    by_user = Counter(row["user"] for row in found.rows)
    assert by_user[pseudonym("flood")] == by_user.most_common(1)[0][1] == 200
    assert_nothing_planted(folder, found)
    assert_traced(folder, found)
    assert_split_by_user(found)


def assert_nothing_planted(folder: Path, found: FromLogs) -> None:
    feedback = imported(LocalStore(folder / "store"), "feedback", IMPORTED_FEEDBACK)
    assert feedback is not None
    assert len(feedback) == 50
    said = json.dumps([found.rows, feedback.to_pylist()])
    for kind, form in PLANTED.items():
        assert not [number for number in range(EACH) if form.format(number) in said], kind


def assert_traced(folder: Path, found: FromLogs) -> None:
    """Each prompt is what the line says that its lineage names."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for row, lineage in zip(found.rows, found.lineage, strict=True):
        line = lines[lineage["line"] - 1]
        assert (lineage["prompt_id"], lineage["log"], lineage["policy_id"]) == (row["prompt_id"], "log.jsonl", "ppo-1")
        assert row["messages"] == line["request"]["messages"]
        assert row["user"] == lineage["user"] == pseudonym(line["user"])


def assert_split_by_user(found: FromLogs) -> None:
    splits: dict[str, set[str]] = {}
    for row in found.rows:
        splits.setdefault(row["user"], set()).add(row["split"])
    assert {len(one) for one in splits.values()} == {1}
    assert {split for one in splits.values() for split in one} == {"train", "validation", "test"}


def test_marks_in_place_of_personal_data(tmp_path: Path) -> None:
    lines = [chat_line(f"{kind}: {form.format(7)}, is it?", id=kind) for kind, form in PLANTED.items()]
    write_log(tmp_path / "log.jsonl", [*lines, thumbs_line("US_SSN")])
    found = kept(tmp_path, personal_data="mask")
    assert [row["text"] for row in found.rows] == [f"{kind}: <{kind}>, is it?" for kind in PLANTED]
    assert found.counts["personal_data"] == dict.fromkeys(PLANTED, 1)
    feedback = imported(LocalStore(tmp_path / "store"), "feedback", IMPORTED_FEEDBACK)
    assert feedback is not None
    assert feedback["prompt"].to_pylist() == ["US_SSN: <US_SSN>, is it?"]
