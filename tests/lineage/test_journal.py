"""Decisions on record: none is lost, none is changed, and what cannot be read is said."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf_dagster.common.sealed import seal
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.storage.local import LocalStore


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(LocalStore(tmp_path), "notes")
    for number in (1, 2, 3):
        made.append(lambda _, number=number: {"n": number})
    return made


def file(journal: Journal, number: int) -> Path:
    return journal.store.root / "notes" / f"{number:06}.json"


def fresh(journal: Journal) -> Journal:
    return Journal(journal.store, "notes")


def test_entries_are_numbered_files_in_order(journal) -> None:
    assert [path.name for path in sorted(file(journal, 1).parent.iterdir())] == [f"00000{n}.json" for n in (1, 2, 3)]
    assert fresh(journal).entries() == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert fresh(journal).last() == {"n": 3}
    assert fresh(journal).problems() == []


def test_who_decides_is_shown_all_entries_and_can_leave_it(journal) -> None:
    seen = []
    assert journal.append(lambda entries: seen.append(list(entries))) is None
    assert seen == [[{"n": 1}, {"n": 2}, {"n": 3}]]
    assert len(fresh(journal).entries()) == 3


def test_who_comes_second_decides_anew(journal) -> None:
    asked = []

    def decide(entries: list) -> dict:
        asked.append(len(entries))
        if len(asked) == 1:
            fresh(journal).append(lambda _: {"n": "faster"})
        return {"n": len(entries)}

    assert journal.append(decide) == {"n": 4}
    assert asked == [3, 4]
    assert [entry["n"] for entry in fresh(journal).entries()] == [1, 2, 3, "faster", 4]


@dataclass(frozen=True)
class Note:
    n: int


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"n": 4, "more": 1}, "it has the unknown key 'more'"),
        ({}, "it lacks a key that it must have"),
        ({"n": "4"}, "'n' is not what it must be"),
        ({"n": True}, "'n' is not what it must be"),
    ],
)
def test_an_entry_of_another_kind_is_named_and_can_be_set_aside(journal, values: dict, why: str) -> None:
    file(journal, 4).write_bytes(seal(values))
    kept = Journal(journal.store, "notes", Note)
    for ask in (kept.entries, kept.last):
        with pytest.raises(Damaged, match=rf"^notes/000004\.json .*{why}\. `rlhf check LOOP --repair` sets it aside"):
            ask()
    assert [why in problem for problem in kept.problems()] == [True]
    kept.repair()
    assert kept.entries() == fresh(journal).entries() == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert kept.problems() == []


@pytest.mark.parametrize("torn", [b"", b"\0" * 200, b'{"n": 3, "_wri'])
def test_a_torn_entry_is_left_out_said_and_mended(journal, torn: bytes, caplog) -> None:
    """As after a power loss: nobody was ever told that it holds."""
    file(journal, 3).write_bytes(torn)
    assert fresh(journal).entries() == [{"n": 1}, {"n": 2}]
    assert fresh(journal).last() == {"n": 2}
    assert "notes/000003.json is damaged" in caplog.text
    assert len(fresh(journal).problems()) == 1
    fresh(journal).append(lambda _: {"n": 4})
    assert fresh(journal).repair() == [
        "notes/000003.json could not be read and counts no more; what is left of it is in damaged/notes/000003.json."
    ]
    assert fresh(journal).problems() == []
    assert fresh(journal).entries() == [{"n": 1}, {"n": 2}, {"n": 4}]
    assert (journal.store.root / "damaged" / "notes" / "000003.json").read_bytes() == torn


def test_an_entry_that_was_whole_and_is_not_stops_who_decides(journal) -> None:
    """It may have said what is asked now."""
    path = file(journal, 2)
    path.write_bytes(path.read_bytes().replace(b'"n": 2', b'"n": 9'))
    for ask in (fresh(journal).entries, lambda: fresh(journal).append(lambda _: {"n": 4})):
        with pytest.raises(Damaged, match=r"notes/000002\.json is damaged.*check LOOP --repair"):
            ask()
    assert fresh(journal).repair()
    assert fresh(journal).entries() == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize("number", [1, 2])
def test_an_entry_that_is_gone_or_exchanged_is_said(journal, number: int) -> None:
    whole = file(journal, number).read_bytes()
    file(journal, number).unlink()
    if number > 1:
        assert "is not there any more" in fresh(journal).problems()[0]
    file(journal, number).write_bytes(seal({"n": "forged", "_before": json.loads(whole)["_before"]}))
    assert "is not there any more" in fresh(journal).problems()[0]


def test_foreign_files_are_no_entries(journal) -> None:
    for name in ("README", "000004.json.bak", "latest.json", "٣.json"):
        (file(journal, 1).parent / name).write_text("x")
    assert len(fresh(journal).entries()) == 3
    assert fresh(journal).problems() == []


def test_line_separators_in_a_reason_end_nothing(journal) -> None:
    reason = "one\u2028two\u2029three\x85four\nfive\x0bsix"
    journal.append(lambda _: {"reason": reason})
    assert fresh(journal).last() == {"reason": reason}


def test_a_disk_without_room_is_one_sentence_and_changes_nothing(journal, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            fresh(journal).append(lambda _: {"n": 4})
    assert len(fresh(journal).entries()) == 3
